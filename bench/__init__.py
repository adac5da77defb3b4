"""Load for a running system: `wrk/order.lua` places one-line orders, each under a key of its own."""
