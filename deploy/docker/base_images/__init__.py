"""Images to stand in for those of Python, Kafka and PostgreSQL on a machine that can pull none."""
