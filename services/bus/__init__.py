"""Kafka and PostgreSQL plumbing without any rule of the trade, with in-memory twins for tests and simulation."""
