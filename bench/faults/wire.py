"""What passes over the links of a system, as far as a fault has to recognise it: the bytes of a message, and what ends
its reply.

Patterns are sought in what is read at once. A message that comes in two pieces is missed, and the next one found.
"""

from typing import NamedTuple


class Message(NamedTuple):
    """Patterns of regular expressions, over bytes."""

    request: bytes
    reply: bytes = b""


# The simple query `commit`, or the statement of this name in a batch that is written in one go; ReadyForQuery.
COMMIT = Message(rb"Q\x00\x00\x00\x0bcommit\x00|B.{4}\x00fg_commit\x00", rb"Z\x00\x00\x00\x05.$")
COPY_DATA = Message(rb"PGCOPY\n")
# Any command of Redis, and any reply.
REDIS_COMMAND = Message(rb"^\*\d+\r\n", rb"\r\n$")
# An event on its way to JetStream, and that it is stored.
EVENT = Message(rb"HPUB orders\.", rb'"stream":"ORDERS"')
