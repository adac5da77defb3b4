"""Idempotency keys: what a header means, and what the hashes tell apart."""

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway.domain.keys import HASH_BYTES, KEY_PATTERN, Hasher, parse_key

HASHER = Hasher(bytes(32))
VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255)


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (b"k-1", b"k-1"),
        (b'"k-1"', b"k-1"),
        (b' "k-1" ', b"k-1"),
        (rb'"a\"b\\c"', rb'a"b\c'),
        (b"a" * 255, b"a" * 255),
        (b'"' + b"a" * 255 + b'"', b"a" * 255),
        (b'a"b', b'a"b'),
    ],
)
def test_key_that_is_valid_is_read(header: bytes, key: bytes) -> None:
    assert parse_key(header) == key


@pytest.mark.parametrize(
    "header",
    [b"", b" ", b'""', b'"', b"a b", b'"a b"', b'"a', b'"a"b"', rb'"\a"', b"a\x7f", b"\xc3\xa9"],
)
def test_key_that_is_not_1_to_255_visible_ascii_is_refused(header: bytes) -> None:
    assert parse_key(header) is None


@given(VISIBLE.filter(lambda text: not text.startswith('"')))
def test_key_quoted_and_bare_is_the_same_key(text: str) -> None:
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert parse_key(text.encode()) == parse_key(quoted.encode()) == text.encode()


@given(st.binary(max_size=300))
def test_key_of_any_bytes_is_visible_ascii_or_nothing(header: bytes) -> None:
    key = parse_key(header)
    assert key is None or (1 <= len(key) <= 255 and all(0x21 <= byte <= 0x7E for byte in key))


@given(st.one_of(VISIBLE, VISIBLE.map(lambda text: f'"{text}"'), st.text(st.characters(codec="ascii"), max_size=300)))
@example('"' + "a" * 255 + '"')
@example('"' + "a" * 256 + '"')
@example("a" * 256)
def test_key_pattern_of_the_documents_fits_what_is_read(text: str) -> None:
    assume(text == text.strip())  # A header's surroundings are not part of it.
    assert (parse_key(text.encode()) is not None) is bool(re.search(KEY_PATTERN, text))


def test_hash_of_a_key_is_its_client_s_own() -> None:
    assert HASHER.key_hash(1, b"k") == HASHER.key_hash(1, b"k")
    assert len(HASHER.key_hash(1, b"k")) == HASH_BYTES
    assert HASHER.key_hash(1, b"k") != HASHER.key_hash(2, b"k")


def test_hash_of_a_key_is_its_route_s_own() -> None:
    assert HASHER.key_hash(1, b"k") != HASHER.key_hash(1, b"k", b"\x02")


def test_hash_of_another_secret_is_another() -> None:
    assert HASHER.key_hash(1, b"k") != Hasher(b"\x01" * 32).key_hash(1, b"k")


def test_fingerprint_is_of_the_raw_bytes() -> None:
    assert HASHER.fingerprint(b'{"a":1}') == HASHER.fingerprint(b'{"a":1}')
    assert HASHER.fingerprint(b'{"a":1}') != HASHER.fingerprint(b'{"a": 1}')


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(33)])
def test_hasher_with_a_secret_of_another_length_is_refused(secret: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Hasher(secret)


@pytest.mark.parametrize("header", [b"a" * 256, b'"' + b"a" * 256 + b'"', b"a\tb", b"a\x00"])
def test_key_that_is_too_long_or_has_control_characters_is_refused(header: bytes) -> None:
    assert parse_key(header) is None
