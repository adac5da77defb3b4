"""The whole system on one machine: servers out of wheels, our processes, and the one that watches them."""
