"""Events as the bytes of the NATS protocol (HPUB), many in one piece: nats-py has no public call for more than one
message, and takes microseconds for each.

Pure, and byte for byte what nats-py sends for the same headers. What could end a header's line becomes a blank; a
subject that would is refused.
"""

from collections.abc import Mapping

NEWLINES = str.maketrans({"\r": " ", "\n": " "})


class FrameError(Exception):
    """The message cannot be sent: what is wrong with it."""


def headers(pairs: Mapping[str, str]) -> str:
    """The lines of these headers, whose names are ours."""
    return "".join([f"{name}: {_clean(value)}\r\n" for name, value in pairs.items()])


def message(subject: str, reply: str, lines: str, payload: bytes, bytes_max: int) -> bytes:
    """One message with these header lines. Raises FrameError for a subject that is none, and when headers and payload
    are more than `bytes_max`: the server would close the connection.
    """
    if not subject.isprintable() or not subject or " " in subject:
        raise FrameError(f"{subject!r} is no subject")
    block = f"NATS/1.0\r\n{lines}\r\n".encode()
    size = len(block) + len(payload)
    if size > bytes_max:
        raise FrameError(f"a message of {size} bytes is more than {bytes_max}")
    return b"%b%b%b\r\n" % (f"HPUB {subject} {reply} {len(block)} {size}\r\n".encode(), block, payload)


def _clean(value: str) -> str:
    if "\n" in value or "\r" in value:
        value = value.translate(NEWLINES)
    return value.strip()
