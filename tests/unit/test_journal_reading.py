"""Reading a journal after anything has happened to its bytes: what is whole is found, nothing else ever is."""

import errno
import itertools
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persistence.journal import Damage, JournalError, Record
from persistence.journal import reading as room
from persistence.journal.format import HEAD_BYTES, HEADER_BYTES, MARK, Head, Header, is_payload, pack_head, pack_header
from persistence.journal.reading import DAMAGED_MAX, PAGE_BYTES, PIECE_BYTES, Reader, Survey

HEADER = Header("o-1", "host", b"i" * 16, 1)
EVERYTHING = 1 << 40

payloads = st.lists(
    st.binary(max_size=60) | st.sampled_from([MARK, MARK * 9, b"", bytes(50), pack_head(Record(3, 0, 0, b""), 0)]),
    min_size=1,
    max_size=8,
)


def numbered(payloads: Sequence[bytes], first: int = 1) -> list[Record]:
    return [
        Record(sequence, sequence % 256, 1000 + sequence, payload) for sequence, payload in enumerate(payloads, first)
    ]


def packed(records: Sequence[Record], header: Header = HEADER) -> bytes:
    return b"".join(pack_head(record, header.seed) + record.payload for record in records)


def edges(records: Sequence[Record]) -> list[int]:
    """Where each record begins, in a file, and where the last one ends."""
    lengths = (HEAD_BYTES + len(record.payload) for record in records)
    return list(itertools.accumulate(lengths, initial=HEADER_BYTES))


@contextmanager
def reading(body: bytes, header: Header = HEADER) -> Iterator[Reader]:
    """A reader of a file of these bytes behind its header."""
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(pack_header(header) + body)
        yield Reader(file.fileno(), header, HEADER_BYTES + len(body))


def found_in(body: bytes, header: Header = HEADER) -> tuple[list[Record], Survey]:
    with reading(body, header) as reader:
        survey = reader.survey()
        found = reader.read(0, EVERYTHING)
        assert len(found) == survey.records
        return found, survey


RECORDS = numbered([b"", b"a", b"bc" * 20, MARK * 3, bytes(40), b"end"])


@given(payloads)
def test_reader_whole_file_is_found_as_written(payloads: list[bytes]) -> None:
    records = numbered(payloads)
    assert found_in(packed(records)) == (records, Survey(len(records), 1001, 0, []))


def test_reader_empty_file_has_nothing() -> None:
    assert found_in(b"") == ([], Survey(0, None, 0, []))


def test_reader_cut_at_any_offset_finds_what_is_before() -> None:
    body, ends = packed(RECORDS), edges(RECORDS)[1:]
    for cut in range(len(body)):
        whole = sum(end - HEADER_BYTES <= cut for end in ends)
        found, survey = found_in(body[:cut])
        assert found == RECORDS[:whole]
        assert survey.damaged == []
        torn = body[edges(RECORDS)[whole] - HEADER_BYTES : cut]
        assert survey.torn_bytes == len(torn.rstrip(b"\0"))


def test_reader_any_flipped_bit_costs_the_record_it_is_in() -> None:
    body, starts = packed(RECORDS), edges(RECORDS)
    for bit in range(8 * len(body)):
        flipped = bytearray(body)
        flipped[bit // 8] ^= 1 << bit % 8
        hit = sum(start - HEADER_BYTES <= bit // 8 for start in starts) - 1
        found, survey = found_in(bytes(flipped))
        assert found == RECORDS[:hit] + RECORDS[hit + 1 :]
        lost = Damage(starts[hit], starts[hit + 1] - starts[hit])
        assert survey.damaged == ([lost] if hit + 1 < len(RECORDS) else [])


@given(payloads, st.data())
def test_reader_overwritten_stretch_costs_the_records_it_touches(payloads: list[bytes], data: st.DataObject) -> None:
    records = numbered(payloads)
    body, starts = bytearray(packed(records)), edges(records)
    start = data.draw(st.integers(0, len(body) - 1))
    stop = data.draw(st.integers(start + 1, len(body)))
    noise = data.draw(st.sampled_from([bytes(stop - start), MARK * (stop - start), random.Random(0).randbytes(1000)]))
    before = bytes(body)
    body[start:stop] = noise[: stop - start].ljust(stop - start, b"?")
    touched = [at for at in range(len(body)) if body[at] != before[at]]
    whole = [
        record
        for record, begin, end in zip(records, starts, starts[1:], strict=False)
        if not any(begin <= HEADER_BYTES + at < end for at in touched)
    ]
    assert found_in(bytes(body))[0] == whole


@given(payloads, st.integers(1, 5000))
def test_reader_zeros_behind_the_end_are_no_tear(payloads: list[bytes], zeros: int) -> None:
    records = numbered(payloads)
    assert found_in(packed(records) + bytes(zeros)) == (records, Survey(len(records), 1001, 0, []))


def test_reader_zeros_before_a_good_record_are_damage() -> None:
    found, survey = found_in(packed(RECORDS[:2]) + bytes(500) + packed(RECORDS[2:]))
    assert found == RECORDS
    assert survey.damaged == [Damage(edges(RECORDS)[2], 500)]


def test_reader_records_of_another_file_are_none_of_this_one() -> None:
    foreign = packed(numbered([b"foreign"] * 9, first=100), HEADER._replace(file_id=b"j" * 16))
    found, survey = found_in(packed(RECORDS[:3]) + foreign + packed(RECORDS[3:]))
    assert found == RECORDS
    assert survey.damaged == [Damage(edges(RECORDS)[3], len(foreign))]


@pytest.mark.parametrize("torn", [0, 1, 10, 35])
def test_reader_records_of_before_a_clear_behind_the_new_end_are_not_found(torn: int) -> None:
    """The disk still has them where the file was cut, and a shorter write was torn, or not, before them."""
    old = packed(numbered([b"old"] * 20))
    cleared = HEADER._replace(first_sequence=21)
    new = numbered([b"new"] * 3, first=21)
    written = packed(new, cleared)
    body = written[: len(written) - torn] + old[len(written) - torn :]
    found, survey = found_in(body, cleared)
    assert found == (new[:2] if torn else new)
    assert survey.damaged == []
    assert survey.torn_bytes > 0


def test_reader_record_within_a_damaged_record_is_not_found() -> None:
    """A payload may hold what a journal holds, of this very file."""
    nested = Record(7, 0, 0, packed(RECORDS[:6]))
    body = bytearray(packed([*RECORDS, nested, *numbered([b"last"], first=8)]))
    body[edges(RECORDS)[-1] - HEADER_BYTES] ^= 1
    assert [record.sequence for record in found_in(bytes(body))[0]] == [1, 2, 3, 4, 5, 6, 8]


def test_reader_record_that_is_there_again_is_found_once() -> None:
    body = packed(RECORDS)
    assert found_in(body + packed(RECORDS[2:4]))[0] == RECORDS


@pytest.mark.parametrize("behind", [1, 3, 30])
def test_reader_records_in_the_place_of_a_torn_payload_are_found(behind: int) -> None:
    """Somebody has gone on where a crash had cut a record short."""
    torn = packed([Record(7, 0, 0, b"torn" * 100)])[: HEAD_BYTES + 10]
    later = numbered([b"later"] * behind, first=8)
    found, survey = found_in(packed(RECORDS) + torn + packed(later))
    assert found == RECORDS + later
    assert survey.damaged == [Damage(edges(RECORDS)[-1], len(torn))]


def test_reader_finds_the_same_however_often_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once enough has been checked in vain, a head is trusted, and what stands in its payload's place is lost."""
    monkeypatch.setattr(room, "VAIN_BYTES_MAX", 1000)
    torn = packed([Record(7, 0, 0, bytes(600))])[:HEAD_BYTES]
    body = (
        packed(RECORDS) + (torn + packed(numbered([b"x" * 10], first=8))) * 3 + packed(numbered([b"y" * 700], first=9))
    )
    with reading(body) as reader:
        survey = reader.survey()
        found = [reader.read(0, EVERYTHING) for _ in range(3)]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == survey.records > len(RECORDS)


def test_reader_heads_of_more_than_the_file_hide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "VAIN_BYTES_MAX", 0)
    hostile = pack_head(Record(5, 0, 0, bytes(PIECE_BYTES)), HEADER.seed) * 100
    last = numbered([b"last"], first=9)
    assert found_in(hostile + packed(last))[0] == last


def test_reader_damage_without_end_is_noted_within_bounds() -> None:
    many = numbered([b"x"] * (2 * DAMAGED_MAX + 2))
    body = b"".join(b"?" + packed([record]) for record in many)
    found, survey = found_in(body)
    assert found == many
    assert len(survey.damaged) == DAMAGED_MAX
    assert sum(damage.bytes for damage in survey.damaged) == len(many)


@pytest.mark.parametrize("length", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_reader_records_across_pieces_are_found(length: int) -> None:
    records = numbered([bytes(length), b"a" * 100, random.Random(1).randbytes(length), b"b"])
    assert found_in(packed(records))[0] == records


@pytest.mark.parametrize("gap", range(PIECE_BYTES - 2 * HEAD_BYTES, PIECE_BYTES + 3))
def test_reader_mark_at_the_edge_of_a_piece_is_found(gap: int) -> None:
    found, survey = found_in(b"?" * gap + packed(RECORDS))
    assert found == RECORDS
    assert survey.damaged == [Damage(HEADER_BYTES, gap)]


class Work:
    """Counts what a reader looks at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes_read = self.bytes_checked = 0
        self._pread = os.pread
        monkeypatch.setattr(os, "pread", self.pread)
        monkeypatch.setattr(room, "is_payload", self.is_payload)

    def pread(self, descriptor: int, count: int, at: int) -> bytes:
        self.bytes_read += count
        return self._pread(descriptor, count, at)

    def is_payload(self, payload: bytes, head: Head, seed: int) -> bool:
        self.bytes_checked += len(payload)
        return is_payload(payload, head, seed)


@pytest.mark.parametrize(
    "unit",
    [
        MARK,
        pack_head(Record(5, 0, 0, b""), 0),  # of another file
        pack_head(Record(5, 0, 0, bytes(PIECE_BYTES)), HEADER.seed),  # good, before a payload that is not its own
        pack_head(Record(5, 0, 0, bytes(100)), HEADER.seed),
        pack_head(Record(0, 0, 0, b""), HEADER.seed),  # good, and of before
    ],
    ids=["marks", "foreign heads", "large heads", "small heads", "old heads"],
)
def test_reader_adversarial_bytes_cost_linear_work(unit: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 2 * PIECE_BYTES
    monkeypatch.setattr(room, "VAIN_BYTES_MAX", size // 4)
    body = (unit * (size // len(unit) + 1))[:size]
    with reading(body) as reader:
        work = Work(monkeypatch)
        survey = reader.survey()
    assert survey.records == 0
    assert work.bytes_checked <= 2 * size
    assert work.bytes_read <= 4 * size


def test_reader_good_records_among_adversarial_bytes_cost_linear_work(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = pack_head(Record(2**60, 0, 0, bytes(10_000)), HEADER.seed)
    body = b"".join(hostile + packed([record]) for record in numbered([b"x"] * 1000))
    monkeypatch.setattr(room, "VAIN_BYTES_MAX", len(body) // 4)
    with reading(body) as reader:
        work = Work(monkeypatch)
        assert reader.survey().records > 0
    assert work.bytes_checked <= 2 * len(body)


@given(st.lists(st.binary(max_size=80) | st.sampled_from([MARK, bytes(40)]) | st.integers(1, 30), max_size=30))
@settings(max_examples=500)
def test_reader_any_bytes_yield_only_what_was_written(parts: list[bytes | int]) -> None:
    """Noise, pieces of records, and records in any order: what is found was written, each once and in order."""
    records = numbered([bytes([number]) * number for number in range(1, 31)])
    body = b"".join(packed([records[part - 1]]) if isinstance(part, int) else part for part in parts)
    found, _ = found_in(body)
    assert set(found) <= set(records)
    sequences = [record.sequence for record in found]
    assert sequences == sorted(set(sequences))


def test_read_piece_is_bounded_and_the_next_goes_on() -> None:
    records = numbered([b"x" * 100] * 10)
    with reading(packed(records)) as reader:
        pieces = [reader.read(after, 3 * (100 + HEAD_BYTES)) for after in (0, 3, 6, 9, 10)]
    assert pieces == [records[:3], records[3:6], records[6:9], records[9:], []]


def test_read_record_larger_than_the_piece_comes_alone() -> None:
    records = numbered([b"x", b"y" * 500, b"z"])
    with reading(packed(records)) as reader:
        assert [reader.read(after, 100) for after in (0, 1, 2)] == [records[:1], records[1:2], records[2:]]


def test_read_again_costs_what_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    records = numbered([bytes(PIECE_BYTES)] * 10)
    with reading(packed(records)) as reader:
        reader.read(0, 9 * (PIECE_BYTES + HEAD_BYTES))
        assert reader.read(9, 1) == records[9:]
        work = Work(monkeypatch)
        assert reader.read(9, 1) == records[9:]
    assert work.bytes_read <= 3 * PIECE_BYTES


@given(payloads, st.lists(st.tuples(st.integers(0, 9), st.integers(0, 200)), max_size=6))
def test_read_from_anywhere_in_any_order_is_the_same(payloads: list[bytes], asked: list[tuple[int, int]]) -> None:
    records = numbered(payloads)
    with reading(packed(records)) as reader:
        for after, bytes_max in asked:
            found = reader.read(after, bytes_max)
            assert found == records[after : after + len(found)]
            assert found or after >= len(records)


def test_read_again_notes_damage_once() -> None:
    body = packed(RECORDS[:1]) + b"?" + packed(RECORDS[1:])
    with reading(body) as reader:
        for _ in range(3):
            assert reader.read(0, EVERYTHING) == RECORDS
        assert reader.damaged == [Damage(edges(RECORDS)[1], 1)]


def test_reader_page_that_the_disk_does_not_give_back_is_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    records = numbered([bytes([number]) * 1000 for number in range(30)])
    bad = HEADER_BYTES + 2 * PAGE_BYTES
    pread = os.pread

    def failing(descriptor: int, count: int, at: int) -> bytes:
        if at < bad + PAGE_BYTES and at + count > bad:
            if at >= bad:
                raise OSError(errno.EIO, "bad page")
            count = bad - at  # As the kernel does: what is before it comes, and the error the next time.
        return pread(descriptor, count, at)

    monkeypatch.setattr(os, "pread", failing)
    found, survey = found_in(packed(records))
    starts = edges(records)
    whole = [
        record
        for record, start, end in zip(records, starts, starts[1:], strict=False)
        if end <= bad or start >= bad + PAGE_BYTES
    ]
    assert found == whole
    assert len(survey.damaged) == 1


def test_reader_file_that_cannot_be_read_at_all_is_an_error() -> None:
    with pytest.raises(JournalError, match="cannot be read"):
        Reader(-1, HEADER, EVERYTHING).survey()


def test_reader_file_cut_short_while_it_is_read_ends_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with reading(packed(RECORDS) + bytes(PIECE_BYTES // 16)) as reader:
        os.ftruncate(reader._descriptor, edges(RECORDS)[2])
        work = Work(monkeypatch)
        assert reader.read(0, EVERYTHING) == RECORDS[:2]
        assert work.bytes_read <= 10 * PIECE_BYTES
