"""The ledger: schema, sessions, the commit of a batch, stock, reads, housekeeping, audit."""
