"""The bytes of a journal, in hex, and what is not taken for them."""

from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.journal import JournalError
from persistence.journal.format import (
    HEAD_BYTES,
    HEADER_BYTES,
    HEADER_COPIES,
    MARK,
    PAYLOAD_BYTES_MAX,
    DamagedHeaderError,
    Header,
    NewerFormatError,
    Record,
    is_payload,
    pack_head,
    pack_header,
    unpack_head,
    unpack_header,
)

HEADER = Header("o-1", "h", bytes(range(16)), 7)
RECORD = Record(9, 2, 1764291600123, b"abc")

# fmt: off
HEADER_START = (
    "46474a4f 55524e4c" "0001" "00010203 04050607 08090a0b 0c0d0e0f" "00000000 00000007" "6f2d31" + 125 * "00" + "68"
)
RECORD_HEAD = "fe464752" "00000003" "02" "00000000 00000009" "0000019a c7f95efb"
# fmt: on


def test_header_bytes_are_golden_and_stand_there_twice() -> None:
    raw = pack_header(HEADER)
    copy = bytes.fromhex(HEADER_START).ljust(508, b"\0")
    copy += crc32(copy).to_bytes(4, "big")
    assert raw == copy.ljust(4096, b"\0") * 2


def test_record_head_bytes_are_golden() -> None:
    seed = crc32(bytes(range(16)) + (7).to_bytes(8, "big"))
    assert HEADER.seed == seed
    fields = bytes.fromhex(RECORD_HEAD) + crc32(b"abc", seed).to_bytes(4, "big")
    assert pack_head(RECORD, seed) == fields + crc32(fields, seed).to_bytes(4, "big")


@given(st.from_regex(r"[0-9a-f-]{1,128}", fullmatch=True), st.text(st.characters(codec="utf-8", min_codepoint=1)))
def test_header_is_read_as_written(owner: str, host: str) -> None:
    header = Header(owner.lstrip(".-") or "o", host[:60], b"i" * 16, 2**63)
    assert unpack_header(pack_header(header)) == header


@pytest.mark.parametrize("owner", ["", ".", "..", ".hidden", "a/b", "ü", "a b", "a\0", "o" * 129])
def test_header_owner_that_names_no_file_is_refused(owner: str) -> None:
    with pytest.raises(JournalError, match="cannot have a journal"):
        pack_header(HEADER._replace(owner=owner))


def test_header_host_too_long_is_refused() -> None:
    with pytest.raises(JournalError, match="cannot have a journal"):
        pack_header(HEADER._replace(host="h" * 257))


@pytest.mark.parametrize("copy", HEADER_COPIES)
def test_header_with_one_bad_copy_is_read(copy: int) -> None:
    raw = bytearray(pack_header(HEADER))
    raw[copy : copy + 512] = bytes(512)
    assert unpack_header(bytes(raw)) == HEADER


@pytest.mark.parametrize("copy", HEADER_COPIES)
def test_header_copies_that_differ_mean_the_later(copy: int) -> None:
    later = HEADER._replace(first_sequence=8)
    raw = bytearray(pack_header(HEADER))
    raw[copy : copy + 512] = pack_header(later)[:512]
    assert unpack_header(bytes(raw)) == later


@pytest.mark.parametrize("raw", [b"", b"FGJOURNL", bytes(HEADER_BYTES), b"\xff" * HEADER_BYTES])
def test_header_that_is_none_is_damaged(raw: bytes) -> None:
    with pytest.raises(DamagedHeaderError):
        unpack_header(raw)


def test_header_of_a_later_format_is_not_damage() -> None:
    raw = bytearray(pack_header(HEADER))
    for copy in HEADER_COPIES:
        raw[copy + 8 : copy + 10] = b"\x00\x02"
    with pytest.raises(NewerFormatError, match="format is 2"):
        unpack_header(bytes(raw))


@given(st.binary(max_size=HEADER_BYTES))
def test_header_of_any_bytes_is_refused(raw: bytes) -> None:
    with pytest.raises((DamagedHeaderError, NewerFormatError)):
        unpack_header(raw)


def test_head_is_read_as_written() -> None:
    head = unpack_head(pack_head(RECORD, 1), 1)
    assert head is not None
    assert (head.sequence, head.kind, head.at_ms, head.length) == (9, 2, 1764291600123, 3)
    assert is_payload(b"abc", head, 1)


@pytest.mark.parametrize("other", [b"abd", b"ab", b"abc\0", b""])
def test_head_does_not_take_another_payload(other: bytes) -> None:
    head = unpack_head(pack_head(RECORD, 1), 1)
    assert head is not None
    assert not is_payload(other, head, 1)


@pytest.mark.parametrize("bit", range(8 * HEAD_BYTES))
def test_head_with_a_flipped_bit_is_none(bit: int) -> None:
    raw = bytearray(pack_head(RECORD, 1))
    raw[bit // 8] ^= 1 << bit % 8
    assert unpack_head(bytes(raw), 1) is None


def test_head_does_not_take_less_though_its_crc_is_right() -> None:
    head = unpack_head(pack_head(RECORD, 1), 1)
    assert head is not None
    assert not is_payload(b"ab", head._replace(payload_crc=crc32(b"ab", 1)), 1)


def test_head_of_another_file_is_none() -> None:
    assert unpack_head(pack_head(RECORD, HEADER.seed), HEADER._replace(file_id=bytes(16)).seed) is None


def test_head_of_before_a_clear_is_none() -> None:
    assert unpack_head(pack_head(RECORD, HEADER.seed), HEADER._replace(first_sequence=8).seed) is None


@pytest.mark.parametrize("raw", [b"", MARK, pack_head(RECORD, 1)[:-1], pack_head(RECORD, 1) + b"a"])
def test_head_of_another_length_is_none(raw: bytes) -> None:
    assert unpack_head(raw, 1) is None


def test_head_of_a_payload_beyond_the_bound_is_none() -> None:
    class Large(bytes):
        def __len__(self) -> int:
            return PAYLOAD_BYTES_MAX + 1

    large: Any = Large(b"abc")
    assert unpack_head(pack_head(RECORD._replace(payload=large), 1), 1) is None
