"""HTTP for sources and buyers that don't speak Kafka; to the core it is a client of the topics like any other."""
