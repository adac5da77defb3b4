"""What Floodgate is compared with: the bare server, which is the ceiling, and what people write today."""
