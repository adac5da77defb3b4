"""The lines of a bulk request: cutting them out of what arrives, reading the key and the order of each, and the bytes
of its verdict.

A line has at most LINE_BYTES_MAX bytes, so what is kept of a body is bounded whatever is sent. The order in it is taken
as it stands, byte for byte: its fingerprint is that of the same body at `POST /v1/orders`.
"""

from collections import Counter
from typing import Any

import msgspec

from core_ext import ids
from core_ext.faults import FaultAt
from gateway.domain.keys import parse_key
from gateway.domain.outcomes import RETRY_AFTER_S, Accepted, Outcome, Receipt, Refusal
from gateway.edge.answers import problem_document

LINE_BYTES_MAX = 65536
FIELDS = ("idempotency_key", "order")
KEY_RULE = "a key is 1 to 255 visible ASCII characters, bare or quoted"


class Sent(msgspec.Struct, frozen=True):
    """What a line asks for: the parsed key, and the order as it was written."""

    key: bytes
    order: bytes


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    idempotency_key: str
    order: msgspec.Raw


_decode = msgspec.json.Decoder(_Line).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Lines:
    """Cuts a body into lines, whatever the pieces in which it arrives."""

    def __init__(self) -> None:
        self._begun = b""  # of the line whose end has not come
        self._is_long = False  # whether it is too long already, and what comes of it is thrown away

    def feed(self, piece: bytes) -> list[bytes | None]:
        """The lines that end in this piece, without their ends; None for one that is too long."""
        *ended, begun = (self._begun + piece).split(b"\n")
        lines: list[bytes | None] = [line if len(line) <= LINE_BYTES_MAX else None for line in ended]
        if lines and self._is_long:
            lines[0] = None
            self._is_long = False
        self._is_long = self._is_long or len(begun) > LINE_BYTES_MAX
        self._begun = b"" if self._is_long else begun
        return lines

    def end(self) -> list[bytes | None]:
        """The last line, when the body ends without a line's end."""
        if self._is_long:
            return [None]
        return [self._begun] if self._begun else []


def read_line(line: bytes | None) -> Sent | Refusal | None:
    """What a line asks for, or why it is none; None for an empty one, which asks for nothing."""
    if line is None:
        return Refusal("body_too_large", f"a line has at most {LINE_BYTES_MAX} bytes")
    try:
        read = _decode(line)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _explain(line) if line.strip() else None
    key = parse_key(read.idempotency_key.encode())
    return Refusal("key_invalid", KEY_RULE) if key is None else Sent(key, bytes(read.order))


def verdict(number: int, outcome: Outcome, request_id: str) -> bytes:
    """What becomes of a line, as a line."""
    if isinstance(outcome, Accepted):
        order_id = ids.format_id(outcome.order_id).encode()
        if outcome.replayed:
            return b'{"line":%d,"status":201,"order_id":"%b","replayed":true}\n' % (number, order_id)
        return b'{"line":%d,"status":201,"order_id":"%b"}\n' % (number, order_id)
    if isinstance(outcome, Receipt):
        return b'{"line":%d,"status":202}\n' % number
    told = {"line": number, "status": outcome.status, "problem": problem_document(outcome, request_id)}
    wait_s = outcome.retry_after_s or (RETRY_AFTER_S if outcome.status == 503 else 0)
    return _encode(told | ({"retry_after_s": wait_s} if wait_s else {})) + b"\n"


class Summary(msgspec.Struct):
    """What has become of all lines; `receipts` are those of `accepted` that are in the journal, `refused` goes by code.
    Not `complete`: the last verdict has ended the stream.
    """

    complete: bool = True
    lines: int = 0
    accepted: int = 0
    replayed: int = 0
    receipts: int = 0
    refused: Counter[str] = msgspec.field(default_factory=Counter)

    def line(self) -> bytes:
        """The last line of the answer."""
        return _encode({"summary": self}) + b"\n"


def _explain(line: bytes) -> Refusal:
    """Everything that is wrong with a line, once it is known that something is. What is wrong with its order, admission
    says.
    """
    try:
        document = _decode_any(line)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return Refusal("malformed_json")
    if not isinstance(document, dict):
        return _invalid([FaultAt("wrong_type", "#", "must be an object")])
    if "idempotency_key" not in document:
        return Refusal("key_missing", "a line names its idempotency_key")
    if not isinstance(document["idempotency_key"], str):
        return Refusal("key_invalid", KEY_RULE)
    faults = [FaultAt("unknown_field", "#", "a line has idempotency_key and order")] * bool(document.keys() - {*FIELDS})
    if "order" not in document:
        faults.append(FaultAt("required", "#/order", "is required"))
    # Decoding into a line reads every value of a field that stands there twice, this reading the last one.
    return _invalid(faults) if faults else Refusal("malformed_json", "an object names a field twice")


def _invalid(faults: list[FaultAt]) -> Refusal:
    entries: tuple[dict[str, Any], ...] = tuple(
        {"detail": fault.detail, "pointer": fault.pointer, "code": fault.code} for fault in faults
    )
    return Refusal("invalid", "the line is not valid", entries)
