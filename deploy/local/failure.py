"""The one error of the local stack.

Its text is for the person at the terminal: what happened, why, and what to do next. Nothing else of this package may
reach the user as an exception.
"""


class StackError(Exception):
    """The local system cannot start, go on or be named; the message says what to do."""
