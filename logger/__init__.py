"""Flow 1, first half: an HTTP exchange, copied beside its way, to Kafka."""
