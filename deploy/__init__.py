"""How Gavel is started: on one machine (``local``), in containers, on a cluster."""
