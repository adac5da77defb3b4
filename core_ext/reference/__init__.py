"""The readable twins: each module is the specification of the compiled one of the same name.

Both have the same public names and give the same bytes; the tests in tests/ext run against both. Speed is no concern
here.
"""
