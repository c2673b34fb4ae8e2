"""The only clients: Kafka, OTLP, and the HTTP scaffold of the services."""
