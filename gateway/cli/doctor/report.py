"""What a check finds: `ok`, a `warning` (it works, and could be better or safer) or a `fault` (it does not work, or is
not safe). What is not ok has a remedy of one sentence.
"""

from typing import NamedTuple

OK = "ok"
WARNING = "warning"
FAULT = "fault"


class Check(NamedTuple):
    name: str
    status: str
    said: str
    remedy: str = ""


def ok(name: str, said: str) -> Check:
    return Check(name, OK, said)


def warning(name: str, said: str, remedy: str) -> Check:
    return Check(name, WARNING, said, remedy)


def fault(name: str, said: str, remedy: str) -> Check:
    return Check(name, FAULT, said, remedy)
