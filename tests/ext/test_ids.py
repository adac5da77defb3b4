"""UUIDv7 as RFC 9562 lays it out, its text, and ids that never repeat across a fork."""

import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ext.twins import COMPILED, ORDER_ID, REFERENCE, Twin

MS_MAX = 2**48 - 1
FORK = """
import os, sys
from core_ext.{name} import ids
ids.new_id(0)
reader, writer = os.pipe()
children = []
for _ in range(2):
    child = os.fork()
    if not child:
        os.write(writer, b"".join(ids.new_id(0) for _ in range(8)))
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
drawn = os.read(reader, 4096) + b"".join(ids.new_id(0) for _ in range(8))
print(len({{drawn[at : at + 16] for at in range(0, len(drawn), 16)}}))
"""


def test_new_id_in_the_rfc_example_has_its_bytes(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    # RFC 9562, appendix A.6: 017F22E2-79B0-7CC3-98C4-DC0C0C07398F. Bits under version and variant are drawn as ones.
    drain(twin)
    monkeypatch.setattr("os.urandom", lambda count: bytes.fromhex("fcc3d8c4dc0c0c07398f").ljust(count, b"\0"))
    assert twin.ids.new_id(0x017F22E279B0).hex() == "017f22e279b07cc398c4dc0c0c07398f"


def drain(twin: Twin) -> None:
    """Empty the pool by the way that a fork takes, so that the next id asks for random bytes."""
    if twin.name == "compiled":
        twin.ids._drop_pool()
    else:
        twin.ids._pool.clear()


@pytest.fixture(autouse=True)
def _fresh_pools() -> Iterator[None]:
    yield
    drain(REFERENCE)
    drain(COMPILED)


@given(ms=st.integers(0, MS_MAX))
def test_new_id_of_any_instant_is_a_uuid7_of_it(twin: Twin, ms: int) -> None:
    made = uuid.UUID(bytes=twin.ids.new_id(ms))
    assert (made.version, made.variant, made.int >> 80) == (7, uuid.RFC_4122, ms)
    assert twin.ids.time_of(made.bytes) == ms


def test_new_id_of_one_instant_never_repeats(twin: Twin) -> None:
    assert len({twin.ids.new_id(0) for _ in range(5000)}) == 5000


def test_new_id_draws_all_of_its_random_bits(twin: Twin) -> None:
    ones, zeros = 0, 2**128 - 1
    for _ in range(500):
        drawn = int.from_bytes(twin.ids.new_id(0), "big")
        ones, zeros = ones | drawn, zeros & drawn
    assert (ones & ~zeros).bit_count() == 74


def test_new_id_of_twins_with_the_same_randomness_is_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    drain(REFERENCE)
    drain(COMPILED)
    monkeypatch.setattr("os.urandom", lambda count: bytes(at * 37 % 251 for at in range(count)))
    assert [REFERENCE.ids.new_id(1) for _ in range(1000)] == [COMPILED.ids.new_id(1) for _ in range(1000)]


@pytest.mark.parametrize("ms", [-1, MS_MAX + 1, 2**64, -(2**200)])
@pytest.mark.parametrize("function", ["new_id", "floor_of"])
def test_time_beyond_48_bits_is_refused(twin: Twin, function: str, ms: int) -> None:
    with pytest.raises(ValueError, match="48 bits"):
        getattr(twin.ids, function)(ms)


def test_ids_of_forked_children_differ(twin: Twin) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK.format(name=twin.name)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "24\n"


@given(id_=st.binary(min_size=16, max_size=16))
def test_format_and_parse_of_any_id_agree_with_the_standard_library(twin: Twin, id_: bytes) -> None:
    text = twin.ids.format_id(id_)
    assert text == str(uuid.UUID(bytes=id_))
    assert twin.ids.parse_id(text) == twin.ids.parse_id(text.upper()) == id_


@pytest.mark.parametrize(
    "text",
    [
        "",
        "019ac4d4e0007abc8123456789abcdef",
        "{019ac4d4-e000-7abc-8123-456789abcdef}",
        "019ac4d4-e000-7abc-8123-456789abcde",
        "019ac4d4-e000-7abc-8123-456789abcdef0",
        "019ac4d4-e000-7abc-8123-456789abcdeg",
        "019ac4d4-e000-7abc-8123-456789abcde\n",
        "019ac4d4-e000-7abc-8123+456789abcdef",
        "019ac4d4-e0007-abc-8123-456789abcdef",
        "019ac4d4-e000-7abc-8123-456789abcde０",
        "019ac4d4-e000-7abc-8123-456789abcde\ud800",
    ],
)
def test_parse_id_of_another_text_is_none(twin: Twin, text: str) -> None:
    assert twin.ids.parse_id(text) is None


@given(text=st.text(alphabet="0123456789abcdefABCDEF-g０é", min_size=34, max_size=38))
def test_parse_id_of_twins_is_equal(text: str) -> None:
    assert REFERENCE.ids.parse_id(text) == COMPILED.ids.parse_id(text)


@given(ms=st.integers(0, MS_MAX))
def test_floor_of_an_instant_is_below_its_ids_and_above_the_earlier(twin: Twin, ms: int) -> None:
    floor = twin.ids.floor_of(ms)
    assert floor == ms.to_bytes(6, "big") + bytes(10)
    assert floor < twin.ids.new_id(ms)
    assert ms == 0 or twin.ids.new_id(ms - 1) < floor


def test_partition_of_an_id_is_its_last_four_bits(twin: Twin) -> None:
    assert [twin.ids.partition_of(ORDER_ID[:15] + bytes([last])) for last in (0, 15, 16, 255)] == [0, 15, 0, 15]


@pytest.mark.parametrize("function", ["format_id", "time_of", "partition_of"])
@pytest.mark.parametrize("length", [0, 15, 17])
def test_id_of_another_length_is_refused(twin: Twin, function: str, length: int) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        getattr(twin.ids, function)(bytes(length))
