"""The edge: reads requests and writes answers; knows HTTP, and nothing of stock or storage."""
