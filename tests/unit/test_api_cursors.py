"""Cursors: they come back as they were, and only in the list that they were made for."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.cursors import CURSOR_CHARS_MAX, decode_cursor, encode_cursor


def digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16, key=b"k").digest()


@given(binding=st.binary(max_size=40), position=st.binary(max_size=256))
def test_cursor_in_its_own_list_gives_the_position(binding: bytes, position: bytes) -> None:
    assert decode_cursor(digest, binding, encode_cursor(digest, binding, position)) == position


@given(binding=st.binary(max_size=8), position=st.binary(max_size=8), moved=st.integers(1, 8))
def test_cursor_with_a_shifted_border_is_refused(binding: bytes, position: bytes, moved: int) -> None:
    other = binding + position[:moved]
    cursor = encode_cursor(digest, binding, position)
    assert other == binding or decode_cursor(digest, other, cursor) is None


def test_cursor_of_another_list_is_refused() -> None:
    assert decode_cursor(digest, b"b", encode_cursor(digest, b"a", b"p")) is None


@given(text=st.text(max_size=60))
def test_cursor_that_was_not_made_here_is_refused(text: str) -> None:
    assert decode_cursor(digest, b"", text) is None


@pytest.mark.parametrize("text", ["", "=", "A", "AAAA", "\u00e9", "A" * (CURSOR_CHARS_MAX + 1), "A" * 27])
def test_cursor_of_an_odd_form_is_refused(text: str) -> None:
    assert decode_cursor(digest, b"", text) is None


def test_cursor_with_one_bit_changed_is_refused() -> None:
    cursor = encode_cursor(digest, b"a", b"0123456789abcdef")
    changed = [cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :] for at in range(len(cursor) - 1)]
    assert all(decode_cursor(digest, b"a", text) is None for text in changed)
