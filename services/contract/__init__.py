"""The published language of Gavel: events, commands, log entries, topics, and how a reader takes the log."""
