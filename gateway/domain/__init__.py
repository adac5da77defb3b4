"""What orders, clients, keys and problems are. Pure: no I/O, no clock."""
