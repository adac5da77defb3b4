"""The mirror of the shared counters and the bell between workers: Redis, or whatever speaks its protocol."""
