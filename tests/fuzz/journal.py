"""Journal files: whatever has become of their bytes, between a worker that died and one that adopts what it left.

An input is a program that writes a file, so that what was really written is known. Checked of each: the records that
are found were written, in their order, and none is found twice; those before the first damage are all found; reading
ends, changes nothing, and needs no more memory than a record and a piece; what cannot be read is a JournalError or set
aside; and that what the drain makes of a record is an order or a ValueError.
"""

import itertools
import shutil
import struct
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from zlib import crc32

import msgspec
from hypothesis import strategies as st

from gateway.draining import _kept_in
from gateway.journaling import ORDER, Kept
from persistence.journal import JournalError, Record, adopt, kept, peek, read_quarantine
from persistence.journal import format as form
from persistence.journal.format import HEADER_BYTES, MARK, PAYLOAD_BYTES_MAX, RECORD_BYTES_MAX, Header, pack_head
from persistence.journal.quarantine import _ORIGIN, QUARANTINED
from persistence.postgres.orders import ORDER as ORDER_COLUMNS
from tests.fuzz.memory import MIB, limit_growth
from tests.fuzz.target import Answer, FindingError, Target

OWNER = "o-1"
FILE_ID = b"i" * form.FILE_ID_BYTES
AT_MS = 1_800_000_000_000
LATE_MS = 5000
SHARED_MEMORY = Path("/dev/shm")
ADDRESS_SPACE_BYTES_MAX = 160 * MIB  # beyond what the process has when it begins; the longest lie is 4 GiB
CONTENT_BYTES_MAX = 8 * MIB

GOOD, LYING, FOREIGN, RAW, AGAIN, ZEROS = range(6)  # what a step writes
INTACT, FIRST_GONE, SECOND_GONE, BOTH_GONE, NEWER, CLEARED, CUT = range(7)  # what has become of the header
JOURNAL, QUARANTINE = ".journal", ".quarantine"


# Payloads that look like something else; the last are MessagePack of arrays without end.
ODD = [b"", MARK * 9, bytes(50), pack_head(Record(3, 0, 0, b""), 0), b"\x91" * 5000, b"\xdd\xff\xff\xff\xff"]


class Step(msgspec.Struct, array_like=True):
    """Writes something behind what is there: GOOD a record of `kind` with `times` the `data` as its payload; LYING the
    same with a head that says `length`; FOREIGN one of another file; RAW the `data`; AGAIN what step `length` has
    written; ZEROS as many as `length`.
    """

    does: int
    kind: int
    data: bytes
    times: int
    length: int


class Damage(msgspec.Struct, array_like=True):
    """`count` bytes at `at`, modulo the size of the file, are replaced."""

    at: int
    count: int
    data: bytes


class File(msgspec.Struct, array_like=True):
    """How a file comes about: its header, its steps, then its damages, then its end at `cut`, unless that is -1. It is
    read in pieces of `read_bytes`.
    """

    ending: str
    header: int
    first: int
    steps: list[Step]
    damages: list[Damage]
    cut: int
    read_bytes: int


class Written(NamedTuple):
    """A file's bytes, the records that were written to it, and how many of them have to be found: those that stand
    before whatever else there is. `cleared`: none is to be found any more.
    """

    content: bytes
    records: list[Record]
    sure: int
    cleared: bool


class JournalTarget(Target[File]):
    """See above."""

    name: ClassVar[str] = "journal"
    shape = File
    dictionary: ClassVar[Sequence[bytes]] = [MARK, MARK + bytes(2), form.MAGIC, b"\xff" * 4, bytes(8), b"\0\x40\0\0"]

    def __init__(self) -> None:
        place = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        self._folder = Path(tempfile.mkdtemp(prefix="floodgate-fuzz-", dir=place))

    def inputs(self) -> st.SearchStrategy[File]:
        headers = st.sampled_from([INTACT] * 9 + [FIRST_GONE, SECOND_GONE, BOTH_GONE, NEWER, CLEARED, CUT])
        ends = st.sampled_from([-1, -1]) | st.integers(HEADER_BYTES, HEADER_BYTES + 600) | st.integers(0, HEADER_BYTES)
        return st.builds(
            File,
            st.sampled_from([JOURNAL, JOURNAL, JOURNAL, QUARANTINE]),
            headers,
            st.sampled_from([1, 1, 7, 2**63]),
            st.lists(_steps(), max_size=8),
            st.lists(_damages(), max_size=2),
            ends,
            st.sampled_from([1, 100, 1 << 20]),
        )

    def of_bytes(self, data: bytes) -> File:
        """The first byte is the header, the second what is read; then each step is five bytes and its data."""
        steps: list[Step] = []
        at = 3
        while at + 5 <= len(data) and len(steps) < 64:
            does, kind, size, length = (
                data[at] % 6,
                data[at + 1],
                data[at + 2],
                int.from_bytes(data[at + 3 : at + 5], "big"),
            )
            payload = data[at + 5 : at + 5 + size]
            # A lie may be of any size that there is room for.
            steps.append(Step(does, kind, payload, 1, length if kind & 64 else length << 16 | length))
            at += 5 + size
        options = data[:3].ljust(3, b"\0")
        ending = QUARANTINE if options[0] & 128 else JOURNAL
        damages = [Damage(HEADER_BYTES + options[2], 1, b"\xaa")] if options[2] else []
        return File(
            ending, options[0] % 16 if options[0] % 16 <= CUT else INTACT, 1, steps, damages, -1, 1 + options[1]
        )

    def corpus(self) -> list[bytes]:
        payloads = [b"", b"abc", _kept(b"row"), MARK * 9, _quarantined(b"p", b"why")]
        program = b"".join(bytes([does, 64 | ORDER, len(one), 0, 9]) + one for one in payloads for does in range(6))
        return [bytes([options, 99, 0]) + program for options in (INTACT, 128, CLEARED, SECOND_GONE)]

    def check(self, batch: Sequence[File]) -> list[Answer]:
        return [self._check(one) for one in batch]

    def limit_memory(self) -> None:
        limit_growth(ADDRESS_SPACE_BYTES_MAX)

    def close(self) -> None:
        shutil.rmtree(self._folder)

    def _check(self, one: File) -> Answer:
        written = write(one)
        path = self._folder / f"{OWNER}{one.ending}"
        path.write_bytes(written.content)
        try:
            is_journal = one.ending == JOURNAL
            label = self._read_journal(one, path, written) if is_journal else _read_quarantine(path, written)
        finally:
            for left in self._folder.iterdir():
                left.unlink()
        return Answer(label != "unreadable", f"{one.ending[1:]} {label}")

    def _read_journal(self, one: File, path: Path, written: Written) -> str:
        """Look at it, adopt it, and read it as the drain does."""
        (peeked,) = peek(self._folder)
        try:
            orphan = next(adopt(self._folder), None)
        except JournalError:
            orphan = None
        if orphan is None:
            left = path if path.exists() else kept(self._folder)[0]
            _expect(left.read_bytes() == written.content, "a file that cannot be read was changed")
            _expect(not (written.sure and peeked.records), "a journal with good records was not taken up")
            return "unreadable"
        found = _read_all(orphan, one.read_bytes, len(written.content))
        _judge(found, written)
        survey = (orphan.records, orphan.torn_bytes, orphan.damaged)
        _expect(survey[0] == len(found), f"{survey[0]} records were counted, and {len(found)} read")
        _expect(survey == (peeked.records, peeked.torn_bytes, peeked.damaged), "two looks at a file differ")
        orphan.close(remove=False)
        _expect(path.read_bytes() == written.content, "reading has changed the file")
        for record in found:
            _drain(record)
        return "damaged" if orphan.damaged else "torn" if orphan.torn_bytes else "whole"


def write(one: File) -> Written:
    """The file that comes of a program."""
    header = Header(OWNER, "host", FILE_ID, one.first)
    start, pieces = _header(one, header), _pieces(one, header)
    content = (start + b"".join(pieces))[:CONTENT_BYTES_MAX]
    first_hurt = len(content)
    for damage in one.damages:
        at = damage.at % (len(content) + 1)
        content = content[:at] + damage.data + content[at + damage.count :]
        first_hurt = min(first_hurt, at)
    if one.cut >= 0:
        content, first_hurt = content[: one.cut], min(first_hurt, one.cut)
    good = itertools.takewhile(lambda pair: pair[0].does == GOOD, zip(one.steps, pieces, strict=True))
    ends = itertools.accumulate((len(piece) for _, piece in good), initial=len(start))
    sure = sum(end <= first_hurt for end in ends) - 1 if one.header in (INTACT, FIRST_GONE, SECOND_GONE) else 0
    records = [record for step, record in zip(one.steps, _records(one), strict=True) if step.does == GOOD]
    # Without the first copy of its header a file is as it was before it was cleared.
    return Written(content, records, max(sure, 0), one.header == CLEARED and first_hurt >= HEADER_BYTES)


def _records(one: File) -> list[Record]:
    """One of each step, whether it is written as it is or not."""
    return [Record(at, step.kind, AT_MS, _repeated(step)) for at, step in enumerate(one.steps, one.first)]


def _pieces(one: File, header: Header) -> list[bytes]:
    """What each step writes."""
    foreign = header._replace(file_id=b"j" * form.FILE_ID_BYTES).seed
    pieces: list[bytes] = []
    for step, record in zip(one.steps, _records(one), strict=True):
        pieces.append(_piece(step, record, header.seed, foreign, pieces))
    return pieces


def _repeated(step: Step) -> bytes:
    return step.data * min(step.times, RECORD_BYTES_MAX // max(len(step.data), 1))


def _header(one: File, header: Header) -> bytes:
    raw = form.pack_header(header)
    half = form.HEADER_COPIES[1]
    if one.header == CLEARED:
        return form.pack_header(header._replace(first_sequence=one.first + 1))[:half] + raw[half:]
    if one.header == CUT:
        return raw[: one.first % HEADER_BYTES]
    later = raw[:8] + b"\x00\x02" + raw[10:half]
    changes = {
        FIRST_GONE: bytes(half) + raw[half:],
        SECOND_GONE: raw[:half] + b"\xff" * half,
        BOTH_GONE: b"\xff" * HEADER_BYTES,
        NEWER: later * 2,
    }
    return changes.get(one.header, raw)


def _piece(step: Step, record: Record, seed: int, foreign: int, pieces: Sequence[bytes]) -> bytes:
    """What a step writes."""
    if step.does == RAW:
        return step.data
    if step.does == ZEROS:
        return bytes(step.length & 0xFFFFF)
    if step.does == AGAIN:
        return pieces[step.length % len(pieces)] if pieces else b""
    if step.does == LYING and step.length != len(record.payload):
        return _lying_head(record, step.length & 0xFFFFFFFF, seed) + record.payload
    return pack_head(record, foreign if step.does in (FOREIGN, LYING) else seed) + record.payload


def _lying_head(record: Record, length: int, seed: int) -> bytes:
    """Good by its own CRC; the payload that it tells of is another one."""
    crc = crc32(record.payload, seed) ^ 1
    fields = form._FIELDS.pack(MARK, length, record.kind, record.sequence, record.at_ms, crc)
    return fields + form._CRC.pack(crc32(fields, seed))


def _read_all(orphan: Any, read_bytes: int, size: int) -> list[Record]:
    found: list[Record] = []
    for _ in range(2 + size // form.HEAD_BYTES):
        piece = orphan.read(found[-1].sequence if found else 0, read_bytes)
        if not piece:
            _expect(orphan.read(0, 1 << 40) == found, "a second reading differs from the first")
            return found
        found += piece
    raise FindingError("reading does not come to an end")


def _read_quarantine(path: Path, written: Written) -> str:
    try:
        found = read_quarantine(path)
    except JournalError:
        return "unreadable"
    _expect(len(found) <= len(written.records), "more records are in quarantine than were put there")
    _expect(path.read_bytes() == written.content, "reading has changed the file")
    return "read"


def _judge(found: Sequence[Record], written: Written) -> None:
    known = set() if written.cleared else {*written.records}
    for record in found:
        _expect(record in known, f"a record was found that nobody has written: {record!r:.300}")
    _expect(
        all(one.sequence < next_.sequence for one, next_ in itertools.pairwise(found)), "records out of their order"
    )
    _expect(list(found[: written.sure]) == written.records[: written.sure], "a record before all damage was not found")


def _drain(record: Record) -> None:
    with suppress(ValueError):  # It is put aside, and the drain goes on.
        _kept_in(record, LATE_MS)


def _expect(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - it reads as an assertion
    if not holds:
        raise FindingError(otherwise)


def _kept(row: bytes, **changes: Any) -> bytes:
    """An order as it stands in a record."""
    plain = Kept(b"o" * 16, b"k" * 16, b"f" * 16, [(b"l" * 16, 1)], [("A", 1)], row, [b"line"], b"history", b"")
    return msgspec.msgpack.encode(msgspec.structs.replace(plain, **changes))


def _row(values: Sequence[bytes | None]) -> bytes:
    """A row in binary COPY form."""
    pieces = [b"\xff\xff\xff\xff" if one is None else struct.pack(">i", len(one)) + one for one in values]
    return struct.pack(">h", len(values)) + b"".join(pieces)


def _quarantined(payload: bytes, reason: bytes) -> bytes:
    return _ORIGIN.pack(1, ORDER, AT_MS, len(reason)) + reason + payload


def _payloads() -> st.SearchStrategy[bytes]:
    """Of records: anything, orders with rows that may be none, and what stands in a quarantine."""
    columns = len(ORDER_COLUMNS.split(", "))
    values = st.none() | st.binary(max_size=12) | st.just(bytes(8)) | st.just(b"\x7f" + b"\xff" * 7)
    counts = st.sampled_from([columns, columns, columns, 0, 1, columns - 1, columns + 1])
    rows = st.builds(lambda count, value: _row([value] * count), counts, values)
    return st.one_of(
        st.binary(max_size=60),
        st.sampled_from(
            [b"", MARK * 9, bytes(50), pack_head(Record(3, 0, 0, b""), 0), b"\x91" * 5000, b"\xdd\xff\xff\xff\xff"]
        ),
        st.builds(_kept, rows),
        st.builds(_kept, rows | st.binary(max_size=30), parts=st.just([]), demand=st.just([("", -1)])),
        st.builds(_quarantined, st.binary(max_size=20), st.binary(max_size=20)),
        st.builds(lambda text, cut: text[:cut], rows.map(_kept), st.integers(0, 80)),
    )


def _steps() -> st.SearchStrategy[Step]:
    lengths = st.integers(0, 80) | st.sampled_from(
        [PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX + 1, 2**31 - 1, 2**31, 2**32 - 1, 1 << 20, 4096]
    )
    does = st.sampled_from([GOOD] * 6 + [LYING, LYING, FOREIGN, RAW, AGAIN, ZEROS])
    kinds = st.sampled_from([ORDER, ORDER, QUARANTINED, QUARANTINED, 2, 255])
    times = st.sampled_from([1] * 60 + [30_000, 100_000])
    return st.builds(Step, does, kinds, _payloads(), times, lengths)


def _damages() -> st.SearchStrategy[Damage]:
    places = st.integers(HEADER_BYTES, HEADER_BYTES + 800) | st.integers(0, HEADER_BYTES) | st.integers(0, 1 << 22)
    pieces = st.binary(max_size=6) | st.sampled_from([bytes(64), bytes(4096), MARK, MARK + b"\x00\x00\x00\x01"])
    return st.builds(Damage, places, st.sampled_from([0, 1, 1, 4, 40, 4096]), pieces)
