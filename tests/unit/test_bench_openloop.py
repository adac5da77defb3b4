"""The open-loop generator: what it offers does not depend on what it is answered, and it accounts for every order."""

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from bench import openloop, pinning
from bench.failure import ScenarioError
from bench.openloop import ACCEPTED, CUT, NO_ANSWER, NOT_SENT, Target, Told, offer, percentile, saturate
from core_ext import ids

ORDER = b'{"channel":"app"}'
ID = ids.format_id(ids.new_id(1_800_000_000_000))


def accepted(_number: int) -> bytes:
    body = b'{"order_id":"%b"}' % ID.encode()
    return b"HTTP/1.1 201 Created\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def refused(_number: int) -> bytes:
    body = b'{"title":"t","code":"overloaded","retryable":true}'
    return b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class Shop:
    """A server on a free port. `answer` makes what a connection is told by the number of the request; empty: it is cut
    off; None: it is left waiting. `pieces`: in how many pieces an answer goes out; `held`: none does before it is set.
    """

    def __init__(self) -> None:
        self.answer: Callable[[int], bytes | None] = accepted
        self.pieces = 1
        self.held: asyncio.Event | None = None
        self.keys: list[bytes] = []
        self.connections = 0
        self.open = self.open_most = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.open_most = max(self.open, self.open_most)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                assert await reader.readexactly(len(ORDER)) == ORDER
                self.keys.append(head.rpartition(b"Idempotency-Key: ")[2].strip())
                answer = self.answer(len(self.keys))
                if self.held:
                    await self.held.wait()
                if answer == b"":
                    break
                await self._send(writer, answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _send(self, writer: asyncio.StreamWriter, answer: bytes | None) -> None:
        size = -(-len(answer or b"") // self.pieces)
        for start in range(0, len(answer or b""), max(size, 1)):
            writer.write((answer or b"")[start : start + size])
            await writer.drain()
            await asyncio.sleep(0)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.005)

    @property
    def target(self) -> Target:
        return Target.of(f"http://127.0.0.1:{self.port}", "fg_t", ORDER)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    shop = Shop()
    server = await asyncio.start_server(shop.serve, "127.0.0.1", 0)
    shop.port = server.sockets[0].getsockname()[1]
    yield shop
    server.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openloop, "PATIENCE_S", 0.3)


async def test_offer_places_every_order_with_a_key_of_its_own(shop: Shop) -> None:
    told = await offer(shop.target, rate=500, seconds=0.2, connections=4)
    assert (told.offered, told.outcomes) == (100, {ACCEPTED: 100})
    assert len(set(shop.keys)) == 100
    assert told.ids == [ID] * 100
    assert len(told.waits) == len(told.answered_at) == 100


async def test_offer_counts_refusals_by_code_and_waits_of_the_accepted_alone(shop: Shop) -> None:
    shop.answer = lambda number: accepted(number) if number % 2 else refused(number)
    told = await offer(shop.target, rate=500, seconds=0.2, connections=4)
    assert told.outcomes == {ACCEPTED: 50, "overloaded": 50}
    assert len(told.waits) == 50


async def test_offer_to_who_answers_nothing_offers_all_the_same(shop: Shop) -> None:
    shop.answer = lambda _: None
    told = await offer(shop.target, rate=2000, seconds=0.05, connections=1)
    assert told.offered == 100
    assert told.outcomes.keys() == {NO_ANSWER, NOT_SENT}
    assert told.outcomes.total() == 100
    assert told.unanswered == told.outcomes[NO_ANSWER] >= 1


async def test_offer_that_is_cut_off_says_so_and_comes_again_on_another_connection(shop: Shop) -> None:
    shop.answer = lambda number: b"" if number == 1 else accepted(number)
    told = await offer(shop.target, rate=100, seconds=0.2, connections=1)
    assert told.outcomes == {CUT: 1, ACCEPTED: 19}
    assert shop.connections == 2
    assert told.unanswered == 1


async def test_offer_reads_answers_in_pieces(shop: Shop) -> None:
    shop.pieces = 5
    assert (await offer(shop.target, rate=200, seconds=0.1, connections=2)).outcomes == {ACCEPTED: 20}


async def test_offer_reads_answers_whoever_writes_their_headers(shop: Shop) -> None:
    shop.answer = lambda number: accepted(number).replace(b"content-length", b"Content-Length")
    assert (await offer(shop.target, rate=200, seconds=0.1, connections=2)).outcomes == {ACCEPTED: 20}


async def test_offer_counts_what_names_no_code_by_its_status(shop: Shop) -> None:
    shop.answer = lambda _: b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n"
    assert (await offer(shop.target, rate=200, seconds=0.1, connections=2)).outcomes == {"status_502": 20}


async def test_wait_of_an_order_counts_from_its_instant_and_not_from_its_sending(shop: Shop) -> None:
    """The first order blocks the only connection: those behind it have waited as long as they were kept from it."""
    shop.held = asyncio.Event()
    waited = 0.1

    async def let_go(held: asyncio.Event) -> None:
        await shop.until(lambda: bool(shop.keys))
        await asyncio.sleep(waited)
        held.set()

    letting = asyncio.create_task(let_go(shop.held))
    told = await offer(shop.target, rate=1000, seconds=0.01, connections=1)
    await letting
    assert told.outcomes == {ACCEPTED: 10}
    # All but the first were sent after the connection was free; by their own sending they would have waited next to
    # nothing.
    assert min(told.waits) > waited / 2


async def test_offer_opens_another_connection_for_an_order_that_finds_none_free(shop: Shop) -> None:
    """Nobody is answered before all have asked: each order needs a connection of its own."""
    shop.held = asyncio.Event()
    offering = asyncio.create_task(offer(shop.target, rate=1000, seconds=0.01, connections=1, connections_max=64))
    await shop.until(lambda: len(shop.keys) == 10)
    shop.held.set()
    assert (await offering).outcomes == {ACCEPTED: 10}
    assert shop.connections >= 10


async def test_offer_opens_no_connection_while_one_is_free(shop: Shop) -> None:
    told = await offer(shop.target, rate=20, seconds=0.5, connections=2, connections_max=64)
    assert told.outcomes == {ACCEPTED: 10}
    assert shop.connections == 2


async def test_offer_never_has_more_connections_than_it_may(shop: Shop) -> None:
    shop.answer = lambda _: None
    told = await offer(shop.target, rate=2000, seconds=0.05, connections=1, connections_max=4)
    assert told.outcomes[NOT_SENT] > 0
    assert shop.open_most == 4


async def test_offer_never_sends_an_order_whose_patience_is_over(shop: Shop) -> None:
    """The one connection is kept until the first order's patience is over, which is that of all the others too."""
    shop.answer = lambda _: None
    told = await offer(shop.target, rate=1e6, seconds=1e-5, connections=1)
    assert told.outcomes == {NO_ANSWER: 1, NOT_SENT: 9}
    assert len(shop.keys) == 1


async def test_answers_are_of_the_clock_of_the_caller(shop: Shop) -> None:
    before = time.monotonic()
    told = await offer(shop.target, rate=100, seconds=0.1, connections=2)
    assert before < told.started_at < min(told.answered_at)
    assert max(told.answered_at) == told.stopped_at < time.monotonic()
    assert told.cpu_s > 0


async def test_generator_whose_load_is_given_up_is_gone(shop: Shop) -> None:
    offering = asyncio.create_task(offer(shop.target, rate=100, seconds=60, connections=2))
    await shop.until(lambda: len(shop.keys) > 0)
    offering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await offering
    await shop.until(lambda: shop.open == 0)


async def test_generator_ends_when_its_parent_is_killed(shop: Shop) -> None:
    load = f"openloop.offer(openloop.Target{tuple(shop.target)!r}, 100, 60, 2)"
    command = [sys.executable, "-c", f"import asyncio\nfrom bench import openloop\nasyncio.run({load})"]
    parent = await asyncio.create_subprocess_exec(*command)
    await shop.until(lambda: len(shop.keys) > 0)
    parent.kill()
    await parent.wait()
    await shop.until(lambda: shop.open == 0)


async def test_generator_that_fails_says_why(shop: Shop) -> None:
    shop.answer = lambda _: b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}"  # An order without an id.
    with pytest.raises(ScenarioError, match=r"ended early: [\s\S]*AssertionError"):
        await offer(shop.target, rate=100, seconds=0.1, connections=1)


async def test_saturate_keeps_as_many_orders_under_way_as_there_are_connections(shop: Shop) -> None:
    told = await saturate(shop.target, seconds=0.2, connections=3)
    assert told.outcomes == {ACCEPTED: told.offered}
    assert told.offered > 3
    assert shop.connections == 3


async def test_load_on_a_port_that_nobody_listens_on_says_so() -> None:
    with pytest.raises(ScenarioError, match="takes no connections"):
        await offer(Target.of("http://127.0.0.1:1", "t", ORDER), 10, 0.1, 1)


def told(offered: int, late: int) -> Told:
    return Told(offered, Counter({ACCEPTED: offered}), [], [], [1.0, 2.5, 4.0], late, 2.0, 1.0, 4.0, 0.0)


def test_told_that_came_late_to_more_than_one_percent_is_void() -> None:
    assert told(1000, 10).void == ""
    assert told(1000, 11).void == "the generator fell behind: it came late to 1.1% of the orders"


def test_told_counts_in_time_what_was_accepted_before_the_load_was_over() -> None:
    assert told(3, 0).in_time == 2


def test_percentile_is_of_the_sorted_waits() -> None:
    assert percentile([0.3, 0.1, 0.2], 0.5) == 0.2
    assert percentile([0.3, 0.1, 0.2], 0.99) == 0.3
    assert percentile([], 0.5) == 0.0


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
async def test_apart_puts_others_and_oneself_on_different_cores_and_back() -> None:
    cores = os.sched_getaffinity(0)
    other = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        with pinning.apart([other.pid]):
            theirs, ours = os.sched_getaffinity(other.pid), os.sched_getaffinity(0)
        assert (len(theirs), len(ours)) == (1, 1)
        assert theirs != ours
        assert os.sched_getaffinity(other.pid) == os.sched_getaffinity(0) == cores
    finally:
        other.kill()
        await other.wait()


async def test_apart_on_one_core_says_that_it_needs_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    with pytest.raises(ScenarioError, match="a core each"), pinning.apart([]):
        pass
