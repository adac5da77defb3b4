"""`floodgate bench scale`: whether costs stay flat while things grow (SKUs, shards and workers, orders in the ledger),
and what one of each takes of memory.

Each part can be run by itself. The rules are those of `floodgate bench`: every run is kept, only orders in PostgreSQL
with their event in the stream count, and a run that lost or doubled one is a fault of its part.
"""
