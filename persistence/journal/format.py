"""The bytes of a journal: a header, which stands there twice, and records one behind the other. Big-endian.

    header  magic 8 | format 2 | file id 16 | first sequence 8 | owner 128 | host 256 | zeros | CRC-32 4    of 512 bytes
    record  mark 4 | length 4 | kind 1 | sequence 8 | at_ms 8 | CRC-32 of the payload 4 | CRC-32 of these 4 | payload

The CRCs of records go on from that of the file id and the first sequence: a record of another file is none of this
one's, and neither is one of before the file was cleared, wherever its bytes turn up.
"""

import re
import struct
from typing import NamedTuple
from zlib import crc32

from persistence.journal.errors import JournalError

MAGIC = b"FGJOURNL"
FORMAT = 1
# A page of the disk that goes bad takes one copy of the header with it, not both: without one nothing can be read.
HEADER_COPIES = (0, 4096)
HEADER_BYTES = 8192  # where the records begin
FILE_ID_BYTES = 16
OWNER = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z._-]{0,127}", re.ASCII)  # it names a file
HOST_BYTES_MAX = 256

MARK = b"\xfeFGR"  # 0xFE occurs nowhere in UTF-8: no text looks like it
RECORD_BYTES_MAX = 4 << 20  # of a payload that is handed in
PAYLOAD_BYTES_MAX = RECORD_BYTES_MAX + 4096  # of one that is read: in quarantine a record has its reason with it

_HEADER = struct.Struct(">8sH16sQ128s256s90x")
_FIELDS = struct.Struct(">4sIBQQI")
_CRC = struct.Struct(">I")
HEAD_BYTES = _FIELDS.size + _CRC.size

# How a head begins, its length within bounds: what else looks like a mark is passed over without a look at its CRC.
HEAD_START = re.compile(re.escape(MARK) + rb"\x00[\x00-\x40]")
HEAD_START_BYTES = len(MARK) + 2

assert PAYLOAD_BYTES_MAX < 0x410000
assert HEADER_COPIES[1] + _HEADER.size + _CRC.size <= HEADER_BYTES


class DamagedHeaderError(JournalError):
    """Neither copy of the header is good: nothing of the file can be told from noise."""


class NewerFormatError(JournalError):
    """A later version of Floodgate wrote this, and can read it."""


class Header(NamedTuple):
    """Whose file it is. `first_sequence` is that of the first record since the file was made or cleared."""

    owner: str
    host: str
    file_id: bytes
    first_sequence: int

    @property
    def seed(self) -> int:
        """Where the CRCs of its records begin. Another one after each clear that had something to clear: a CRC tells
        any two messages apart that differ in no more than 32 bits in a row.
        """
        return crc32(self.file_id + self.first_sequence.to_bytes(8, "big"))


class Record(NamedTuple):
    """What was appended. `sequence` rises within a journal and is never given twice; `at_ms` is when, by the clock of
    who appended it; what `kind` (0 to 255) and the payload mean is the caller's affair.
    """

    sequence: int
    kind: int
    at_ms: int
    payload: bytes


class Head(NamedTuple):
    """What stands before a payload of `length` bytes."""

    length: int
    kind: int
    sequence: int
    at_ms: int
    payload_crc: int


def pack_header(header: Header) -> bytes:
    """The first HEADER_BYTES of a file. Raises JournalError for an owner or a host that has no place in it."""
    host = header.host.encode()
    if not OWNER.fullmatch(header.owner) or len(host) > HOST_BYTES_MAX:
        raise JournalError(f"owner {header.owner!r} on host {header.host!r} cannot have a journal")
    fields = _HEADER.pack(MAGIC, FORMAT, header.file_id, header.first_sequence, header.owner.encode(), host)
    copy = fields + _CRC.pack(crc32(fields))
    return b"".join(copy.ljust(HEADER_COPIES[1], b"\0") for _ in HEADER_COPIES)


def unpack_header(raw: bytes) -> Header:
    """Of the first HEADER_BYTES of a file, or as many as there are. A clear that was cut short leaves two copies that
    differ: the later one counts, since by then all records were committed. Raises DamagedHeaderError, NewerFormatError.
    """
    copies = [raw[at : at + _HEADER.size + _CRC.size] for at in HEADER_COPIES]
    found = [header for copy in copies if (header := _unpack_copy(copy)) is not None]
    if found:
        return max(found, key=lambda header: header.first_sequence)
    formats = [int.from_bytes(copy[8:10], "big") for copy in copies if copy.startswith(MAGIC)]
    if max(formats, default=0) > FORMAT:
        raise NewerFormatError(f"its format is {max(formats)}, and this version reads format {FORMAT}")
    raise DamagedHeaderError("it has no readable header")


def _unpack_copy(copy: bytes) -> Header | None:
    fields, crc = copy[: _HEADER.size], copy[_HEADER.size :]
    if len(crc) != _CRC.size or _CRC.unpack(crc) != (crc32(fields),):
        return None
    magic, number, file_id, first_sequence, owner, host = _HEADER.unpack(fields)
    if (magic, number) != (MAGIC, FORMAT):
        return None
    owner, host = (name.rstrip(b"\0").decode(errors="replace") for name in (owner, host))
    return Header(owner, host, file_id, first_sequence)


def pack_head(record: Record, seed: int) -> bytes:
    """The HEAD_BYTES that stand before the record's payload."""
    crc = crc32(record.payload, seed)
    fields = _FIELDS.pack(MARK, len(record.payload), record.kind, record.sequence, record.at_ms, crc)
    return fields + _CRC.pack(crc32(fields, seed))


def unpack_head(raw: bytes, seed: int) -> Head | None:
    """None when these HEAD_BYTES, or as many as there are, are no head of this file."""
    if len(raw) != HEAD_BYTES or _CRC.unpack_from(raw, _FIELDS.size) != (crc32(raw[: _FIELDS.size], seed),):
        return None
    mark, length, kind, sequence, at_ms, crc = _FIELDS.unpack_from(raw)
    if mark != MARK or length > PAYLOAD_BYTES_MAX:
        return None
    return Head(length, kind, sequence, at_ms, crc)


def is_payload(payload: bytes, head: Head, seed: int) -> bool:
    """Whether these bytes are what the head stands before."""
    return len(payload) == head.length and crc32(payload, seed) == head.payload_crc
