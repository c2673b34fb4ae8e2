"""Flow 1, second half: payloads from Kafka to panes, windows, verdicts and metrics."""
