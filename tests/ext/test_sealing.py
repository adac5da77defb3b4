"""Sealing: golden bytes, every way to AES-GCM in one and the same format, and keys that never repeat."""

import subprocess
import sys
from types import ModuleType
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from core_ext.shapes import Sealed, ShipTo
from tests.ext import strategies
from tests.ext.pools import no_noise
from tests.ext.twins import COMPILED, ORDER_ID, REFERENCE

MASTER = bytes(range(32))
# Of `{"note":"n","ship_to":{"city":"c"}}`: the key is the bytes 1 to 32, the nonces are 33 to 44 and 45 to 56.
GOLDEN_PERSONAL = (
    "012122232425262728292a2b2ceabf503320bd0c7ccfaeb88aedd7fa617f4df2bf44dee69d47d611206d36b3459817d3"
    "45e7862b727f9940b7f9e886437faa47"
)
GOLDEN_WRAPPED = (
    "2d2e2f303132333435363738c0cd8bfc1afc413eae4acde7e7f41c9da264a29ef3f53bb9b739fbded5488711948ec530"
    "77476ced2ff06fc417de6667"
)
FORK = """
import os
from core_ext.{name} import sealing
sealer = sealing.Sealer(bytes(32), 1)
seal = lambda: sealer.seal(bytes(16), "n", None).wrapped
seal()
reader, writer = os.pipe()
for _ in range(2):
    if not (child := os.fork()):
        os.write(writer, seal())
        os._exit(0)
    os.waitpid(child, 0)
drawn = os.read(reader, 4096) + seal()
print(len({{drawn[at : at + 60] for at in range(0, len(drawn), 60)}}))
"""


class Way(NamedTuple):
    """An implementation, and how it comes by AES-GCM."""

    sealing: ModuleType
    way: str

    def seal(self, order_id: bytes, note: str | None, ship_to: ShipTo | None, version: int = 1) -> Sealed | None:
        sealed: Sealed | None = self.sealing.Sealer(MASTER, version, self.way).seal(order_id, note, ship_to)
        return sealed


WAYS = [Way(twin.sealing, way) for twin in (REFERENCE, COMPILED) for way in twin.sealing.WAYS]


@pytest.fixture(params=WAYS, ids=lambda way: f"{way.sealing.__name__.split('.')[1]}-{way.way}")
def way(request: pytest.FixtureRequest) -> Way:
    chosen: Way = request.param
    return chosen


def test_seal_has_golden_bytes(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.urandom", lambda count: (bytes(range(1, 57)) * 73)[:count])
    COMPILED.sealing._drop_pool()
    sealed = way.seal(ORDER_ID, "n", ShipTo(city="c"), 2)
    COMPILED.sealing._drop_pool()
    assert sealed is not None
    assert (sealed.personal.hex(), sealed.master_version, sealed.wrapped.hex()) == (GOLDEN_PERSONAL, 2, GOLDEN_WRAPPED)


def test_seal_can_be_opened_by_another_implementation(way: Way) -> None:
    sealed = way.seal(ORDER_ID, "请放门口", ShipTo(name="张三"))
    assert sealed is not None
    key = AESGCM(MASTER).decrypt(sealed.wrapped[:12], sealed.wrapped[12:], b"order_key.wrapped|" + ORDER_ID)
    assert sealed.personal[:1] == b"\x01"
    plain = AESGCM(key).decrypt(sealed.personal[1:13], sealed.personal[13:], b"orders.personal|" + ORDER_ID)
    assert plain.decode() == '{"note":"请放门口","ship_to":{"name":"张三"}}'


def test_seal_of_nothing_is_none(way: Way) -> None:
    assert way.seal(ORDER_ID, None, None) is None


def test_seal_never_repeats_a_key_or_a_nonce(way: Way) -> None:
    sealer = way.sealing.Sealer(MASTER, 1, way.way)
    sealed = [sealer.seal(ORDER_ID, "n", None) for _ in range(500)]
    keys = {
        AESGCM(MASTER).decrypt(one.wrapped[:12], one.wrapped[12:], b"order_key.wrapped|" + ORDER_ID) for one in sealed
    }
    assert len(keys) == len({one.wrapped[:12] for one in sealed}) == len({one.personal[1:13] for one in sealed}) == 500


@pytest.mark.parametrize("length", [0, 31, 33])
def test_sealer_with_a_key_of_another_length_is_refused(way: Way, length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        way.sealing.Sealer(bytes(length), 1, way.way)


def test_sealer_by_an_unknown_way_is_refused(way: Way) -> None:
    with pytest.raises(ValueError, match="cannot be had by way of rot13"):
        way.sealing.Sealer(MASTER, 1, "rot13")


def test_sealer_takes_the_best_way_that_there_is(way: Way) -> None:
    assert way.sealing.Sealer(MASTER, 1).way == way.sealing.WAYS[0]
    assert way.sealing.WAYS[-1] == "cryptography"


@pytest.mark.parametrize("name", ["reference", "compiled"])
def test_seals_of_forked_children_differ(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK.format(name=name)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "3\n"


@given(note=strategies.optional_text, ship_to=st.none() | strategies.ship_tos, order_id=strategies.ids)
def test_seal_by_all_ways_is_equal(note: str | None, ship_to: ShipTo | None, order_id: bytes) -> None:
    sealed = []
    for each in WAYS:
        with no_noise():
            sealed.append(each.seal(order_id, note, ship_to))
    assert sealed == sealed[:1] * len(WAYS)
