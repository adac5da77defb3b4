"""Reads the records of a journal, whatever has become of its bytes: what is good is found and nothing else is, in
linear time and with the memory of a record and a piece.

Behind the last good record of a file that a crash has cut short, anything may stand: that is its torn tail, and normal.
What cannot be read before a good record is damage. A page that the disk does not give back is read as zeros, and so is
damage like any other. Zeros at the end are no tail: a file system may leave them there after a power failure.
"""

import errno
import os
from typing import NamedTuple

from persistence.journal.errors import translated
from persistence.journal.format import (
    HEAD_BYTES,
    HEAD_START,
    HEAD_START_BYTES,
    HEADER_BYTES,
    Head,
    Header,
    Record,
    is_payload,
    unpack_head,
    unpack_header,
)

PIECE_BYTES = 1 << 20
PAGE_BYTES = 4096
DAMAGED_MAX = 1000
# Payloads of a file that may be checked for nothing: in the place of one that was torn there may be good records, which
# came later. Beyond that a head is trusted to say where its payload ends, or hostile bytes would cost quadratic time.
VAIN_BYTES_MAX = 64 << 20


class Damage(NamedTuple):
    """`bytes` from `offset` on are no record, and a good one follows."""

    offset: int
    bytes: int


class Survey(NamedTuple):
    """What a file holds. `oldest_ms` is when its first record was appended, None when there is none; `damaged` has at
    most DAMAGED_MAX stretches, and the last of so many sums up the bytes of all that follow.
    """

    records: int
    oldest_ms: int | None
    torn_bytes: int
    damaged: list[Damage]


class _Place(NamedTuple):
    """Behind a good record: where it ends, its sequence, and what has been checked in vain up to there. From the same
    place the same is found.
    """

    position: int
    sequence: int
    vain_bytes: int


class Reader:
    """Of one file, whose descriptor stays its owner's. What lies behind `end`, an offset, is not read. Any method may
    raise JournalError, when the file cannot be read at all.
    """

    def __init__(self, descriptor: int, header: Header, end: int) -> None:
        self.end = end
        self.damaged: list[Damage] = []
        self._descriptor = descriptor
        self._seed = header.seed
        self._first = _Place(HEADER_BYTES, header.first_sequence - 1, 0)
        self._place = self._first
        self._start = self._first  # of what the last `read` returned
        self._seen_to = 0  # how far damage has been noted
        self._piece = b""
        self._piece_at = 0

    @property
    def position(self) -> int:
        """Where the last record that was read ends."""
        return self._place.position

    def read(self, after: int, bytes_max: int) -> list[Record]:
        """Records in order, from the first whose sequence is more than `after`: as many as are at most `bytes_max`
        with their heads, or one that is more. Empty when there are no more. To go on where the last call ended, or to
        repeat it, costs no more than what is returned.
        """
        if after < self._place.sequence:
            self._place = self._start if self._start.sequence <= after else self._first
        found: list[Record] = []
        while True:
            before = self._place
            record = self._next()
            if record is None:
                return found
            if record.sequence <= after:
                continue
            bytes_max -= HEAD_BYTES + len(record.payload)
            if not found:
                self._start = before
            elif bytes_max < 0:
                self._place = before
                return found
            found.append(record)

    def survey(self) -> Survey:
        """Read all there is, and begin again."""
        self._place = self._first
        count, oldest_ms = 0, None
        while (record := self._next()) is not None:
            count += 1
            oldest_ms = record.at_ms if oldest_ms is None else oldest_ms
        torn_bytes = self._tail_bytes()
        self._place = self._start = self._first
        return Survey(count, oldest_ms, torn_bytes, self.damaged)

    def _next(self) -> Record | None:
        """The first good record behind the last one."""
        at, _, vain_bytes = self._place
        while (at := self._find_head(at)) + HEAD_BYTES <= self.end:
            head = unpack_head(self._bytes(at, HEAD_BYTES), self._seed)
            if head is None or not self._may_follow(head, at):
                at += 1
                continue
            payload = self._bytes(at + HEAD_BYTES, head.length)
            if is_payload(payload, head, self._seed):
                self._note_damage(at)
                self._place = _Place(at + HEAD_BYTES + head.length, head.sequence, vain_bytes)
                return Record(head.sequence, head.kind, head.at_ms, payload)
            vain_bytes += head.length
            at += HEAD_BYTES + (head.length if vain_bytes > VAIN_BYTES_MAX else 0)
        return None

    def _may_follow(self, head: Head, at: int) -> bool:
        return head.sequence > self._place.sequence and at + HEAD_BYTES + head.length <= self.end

    def _note_damage(self, start: int) -> None:
        """A good record begins at `start`; what is between it and the one before is noted, once."""
        offset = self._place.position
        if offset < start and offset >= self._seen_to:
            damage = Damage(offset, start - offset)
            if len(self.damaged) == DAMAGED_MAX:
                last = self.damaged.pop()
                damage = Damage(last.offset, last.bytes + damage.bytes)
            self.damaged.append(damage)
        self._seen_to = max(self._seen_to, start)

    def _tail_bytes(self) -> int:
        """From the last good record to the last byte that is not zero."""
        at = last = self._place.position
        while at < self.end:
            piece = self._bytes(at, min(PIECE_BYTES, self.end - at))
            if filled := len(piece.rstrip(b"\0")):
                last = at + filled
            at += PIECE_BYTES
        return last - self._place.position

    def _find_head(self, at: int) -> int:
        """Where the next head may begin, at this offset or behind it; `end` when there is none."""
        while at + HEAD_BYTES <= self.end:
            if not self._has(at, HEAD_BYTES):
                self._load(at, HEAD_BYTES)
            found = HEAD_START.search(self._piece, at - self._piece_at)
            if found:
                return self._piece_at + found.start()
            # The end of the piece may be the beginning of one.
            at = max(at + 1, self._piece_at + len(self._piece) - HEAD_START_BYTES + 1)
        return self.end

    def _bytes(self, at: int, count: int) -> bytes:
        """Fewer when somebody has cut the file short."""
        if not self._has(at, count):
            self._load(at, count)
        return self._piece[at - self._piece_at : at - self._piece_at + count]

    def _has(self, at: int, count: int) -> bool:
        return self._piece_at <= at and at + count <= self._piece_at + len(self._piece)

    def _load(self, at: int, count: int) -> None:
        count = min(max(count, PIECE_BYTES), self.end - at)
        with translated("a journal cannot be read"):
            self._piece, self._piece_at = _read(self._descriptor, count, at), at
        if len(self._piece) < count:  # Its owner has cleared it meanwhile: there is no more.
            self.end = at + len(self._piece)


def read_header(descriptor: int) -> Header:
    """Of an open file. Raises DamagedHeaderError, NewerFormatError, OSError."""
    return unpack_header(_read(descriptor, HEADER_BYTES, 0))


def _read(descriptor: int, count: int, at: int) -> bytes:
    """Fewer only at the end of the file."""
    parts: list[bytes] = []
    while count and (part := _read_some(descriptor, count, at)):
        parts.append(part)
        at, count = at + len(part), count - len(part)
    return b"".join(parts)


def _read_some(descriptor: int, count: int, at: int) -> bytes:
    try:
        return os.pread(descriptor, count, at)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    page_rest = PAGE_BYTES - at % PAGE_BYTES
    return _read_some(descriptor, page_rest, at) if count > page_rest else bytes(count)
