"""Load for a running system: `wrk/order.lua` places one-line orders, each under a key of its own; `sale.py`
is a crowd at the opening of a sale, on a system of its own.
"""
