"""Adapters to what Floodgate stores in and publishes to. Nothing here knows the gateway or the hot path."""
