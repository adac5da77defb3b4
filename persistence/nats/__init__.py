"""The event stream: NATS JetStream."""
