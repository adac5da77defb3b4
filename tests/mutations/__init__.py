"""The mutation run: every guard of the promise is removed once, and the row of the fault matrix that names it, or the
simulation, has to notice. Both the product and the matrix know nothing of it.
"""
