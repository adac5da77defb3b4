"""The fault matrix: a whole system of its own is broken on purpose, again and again, while buyers place orders and
write down what they are told; afterwards their history, the ledger and the stream must agree.

Nothing in here is part of the product, and no product code knows of it: every moment is found from outside.
"""
