"""Kafka: connection settings, topics, and the transport that delivers chunks of records."""
