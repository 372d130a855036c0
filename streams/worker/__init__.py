"""The worker: learns from Kafka, in processes of its own."""
