"""Real Kafka and PostgreSQL on this machine, from packages, without Docker and without root."""
