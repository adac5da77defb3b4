"""One write, one answer, however the answer is cut on its way; frames to the byte."""

import asyncio
from typing import Any

import asyncpg
import pytest

from persistence.postgres import frames
from persistence.postgres.pipeline import Answer, Pipeline

COMMITTED = bytes.fromhex("3200000004 430000000a424547494e00 430000000b434f4d4d495400 5a0000000549")
FIELDS = b"SERROR\x00VERROR\x00C23505\x00Mduplicate key\x00tbatch\x00\x00"
FAILED = b"E" + (4 + len(FIELDS)).to_bytes(4, "big") + FIELDS + b"Z\x00\x00\x00\x05E"
EXECUTE = "45 00000009 00 00000000"
COPY_HEADER = "5047434f50590aff0d0a00 0000000000000000"
NOTICE = b"S\x00\x00\x00\x0aa\x00b\x00c\x00"


class Driver:
    """The driver's protocol, which notes what reaches it."""

    def __init__(self) -> None:
        self.received = b""
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, _: Exception | None) -> None:
        self.lost = True


class Transport:
    def __init__(self) -> None:
        self.protocol: Any = None
        self.written = b""

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: bytes) -> None:
        self.written += data


class World:
    def __init__(self) -> None:
        self.transport, self.driver = Transport(), Driver()
        self.pipeline = Pipeline(self.transport, self.driver)

    async def begin(self) -> asyncio.Task[Answer]:
        task = asyncio.create_task(self.pipeline.exchange(b"messages"))
        await asyncio.sleep(0)
        return task


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
async def test_exchange_of_an_answer_in_pieces_puts_them_together(world: World, size: int) -> None:
    answer = await world.begin()
    for at in range(0, len(COMMITTED), size):
        world.transport.protocol.data_received(COMMITTED[at : at + size])
    assert await answer == Answer("COMMIT", None, "I")
    assert world.transport.written == b"messages"


async def test_exchange_of_an_error_gives_the_drivers_own_exception(world: World) -> None:
    answer = await world.begin()
    world.transport.protocol.data_received(FAILED)
    tag, error, state = await answer
    assert (tag, state) == ("", "E")
    assert isinstance(error, asyncpg.UniqueViolationError)
    assert (error.table_name, str(error)) == ("batch", "duplicate key")


async def test_exchange_gives_the_connection_back_with_what_came_behind_the_answer(world: World) -> None:
    answer = await world.begin()
    world.transport.protocol.data_received(COMMITTED + NOTICE)
    assert world.transport.protocol is world.driver
    assert world.driver.received == NOTICE
    await answer


async def test_exchange_over_a_connection_that_ends_raises_and_tells_the_driver(world: World) -> None:
    answer = await world.begin()
    world.transport.protocol.data_received(COMMITTED[:-1])
    world.transport.protocol.connection_lost(None)
    with pytest.raises(ConnectionResetError):
        await answer
    assert world.driver.lost


async def test_exchange_that_is_cancelled_bears_a_late_answer(world: World) -> None:
    answer = await world.begin()
    answer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answer
    world.transport.protocol.data_received(COMMITTED)
    assert world.transport.protocol is world.driver


async def test_exchange_after_a_failed_one_starts_afresh(world: World) -> None:
    first = await world.begin()
    world.transport.protocol.data_received(FAILED)
    await first
    second = await world.begin()
    world.transport.protocol.data_received(COMMITTED)
    assert await second == Answer("COMMIT", None, "I")


@pytest.mark.parametrize(
    ("encoded", "golden"),
    [
        (frames.uuids([]), "00000000 00000000 00000b86"),
        (frames.uuids([bytes(16)]), f"00000001 00000000 00000b86 00000001 00000001 00000010 {bytes(16).hex()}"),
        (
            frames.int8s([7, -1]),
            "00000001 00000000 00000014 00000002 00000001 00000008 0000000000000007 00000008 ffffffffffffffff",
        ),
        (frames.texts(["茶"]), "00000001 00000000 00000019 00000001 00000001 00000003 e88cb6"),
        (
            frames.call("s", [b"ab"]),
            "42 00000015 00 7300 0001 0001 0001 00000002 6162 0000 45 00000009 00 00000000",
        ),
        (b"".join(frames.copy("s", [])), ""),
        (
            b"".join(frames.copy("s", [b"\x01"])),
            f"42 0000000f 00 7300 0001 0001 0000 0000 {EXECUTE} 64 0000001a {COPY_HEADER} 01 ffff 63 00000004",
        ),
    ],
)
def test_frames_are_these_bytes(encoded: bytes, golden: str) -> None:
    assert encoded.hex() == golden.replace(" ", "")


@pytest.mark.parametrize(
    "encode",
    [
        lambda: frames.int8s([1 << 63]),
        lambda: frames.texts(["\ud800"]),
        lambda: frames.uuids([bytes(15), bytes(17)]),
    ],
)
def test_frames_of_a_value_that_is_none_of_its_type_raise(encode: Any) -> None:
    with pytest.raises(frames.EncodeError):
        encode()
