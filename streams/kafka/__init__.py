"""Kafka: how to reach it, the topics, and the transport that hands over chunks of records."""
