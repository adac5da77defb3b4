"""Several workers behind one port: killed, added, taken away and replaced while orders flow. No order is lost, and
whichever worker is asked knows the numbers of all.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest

from persistence.postgres.audit import audit
from tests.load import Buyers, History, ask_again
from tests.served import Served

STOCK = 1_000_000
WAIT_S = 60.0
ASKED = 20  # connections of their own: each of three workers is missed with a chance of 1 in 3,000


@pytest.fixture
async def served(postgres_url: str, nats_url: str) -> AsyncIterator[Served]:
    gateway = Served(postgres_url, nats_url)
    await gateway.prepare({"A": STOCK})
    yield gateway
    await gateway.close()


async def until(what: str, is_so: Callable[[], Awaitable[bool]], served: Served) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            while not await is_so():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not within {WAIT_S} s: {what}\n{served.log()[-4000:]}") from None


async def metrics(served: Served) -> dict[str, float]:
    """What /metrics says on a new connection; nothing when the worker at its other end is gone."""
    headers = {"Authorization": f"Bearer {served.token}", "Connection": "close"}
    try:
        async with aiohttp.ClientSession(headers=headers) as client, client.get(f"{served.url}/metrics") as answer:
            text = await answer.text() if answer.status == 200 else ""
    except aiohttp.ClientError:
        return {}
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def workers_up(served: Served) -> int:
    """How many workers take orders."""
    return sum(value == 1 for name, value in (await metrics(served)).items() if name.startswith("floodgate_ledger_up"))


async def until_up(served: Served, workers: int) -> None:
    async def are_up() -> bool:
        return len(served.workers()) == workers == await workers_up(served)

    await until(f"{workers} workers take orders", are_up, served)


@contextlib.asynccontextmanager
async def buying(served: Served) -> AsyncIterator[History]:
    """Orders flow over many connections meanwhile; what was not answered is asked again at the end."""
    buyers = Buyers(served.url, served.token, "A", together=24, run="run")
    task = asyncio.create_task(buyers.buy())
    try:
        yield buyers.history
    finally:
        buyers.stop()
        await task


async def until_more(served: Served, history: History, orders: int = 200) -> None:
    wanted = len(history.accepted) + orders

    async def are_more() -> bool:
        return len(history.accepted) >= wanted

    await until(f"{orders} more orders", are_more, served)


async def assert_nothing_lost(served: Served, history: History) -> None:
    again = await ask_again(served.url, served.token, "A", history.unknown)
    assert again.accepted.keys() == history.unknown
    stored = {str(row["order_id"]) for row in await served.fetch("select order_id from orders")}
    assert stored == history.order_ids() | again.order_ids()
    assert len(stored) == len(history.accepted) + len(again.accepted)
    assert (await audit(served.postgres_url)).clean


async def test_workers_one_killed_three_times_comes_back_and_its_neighbours_never_die(served: Served) -> None:
    await served.start(workers=3)
    await until_up(served, 3)
    victim, *others = served.workers()
    async with buying(served) as history:
        for _ in range(3):
            os.kill(victim, signal.SIGKILL)

            async def is_back(dead: int = victim) -> bool:
                return dead not in served.workers() and len(served.workers()) == 3

            await until("the killed worker is started again", is_back, served)
            assert served.workers() > set(others), served.log()
            (victim,) = served.workers() - set(others)
        await until_up(served, 3)
        await until_more(served, history)
    assert served.workers() == {victim, *others}
    assert served.log().count('"how":"signal 9, SIGKILL"') == 3
    await assert_nothing_lost(served, history)


async def test_workers_one_that_is_stopped_is_killed_and_comes_back(served: Served) -> None:
    await served.start(workers=2)
    await until_up(served, 2)
    stopped, other = served.workers()
    async with buying(served) as history:
        await until_more(served, history)
        os.kill(stopped, signal.SIGSTOP)

        async def is_replaced() -> bool:
            return stopped not in served.workers() and len(served.workers()) == 2

        await until("the stopped worker is replaced", is_replaced, served)
        await until_up(served, 2)
        await until_more(served, history)
    assert other in served.workers()
    assert "worker_process_silent" in served.log()
    await assert_nothing_lost(served, history)


async def test_workers_added_and_taken_away_under_load_lose_nothing_and_leave_no_lease(served: Served) -> None:
    await served.start(workers=1)
    async with buying(served) as history:
        await until_more(served, history)
        for number, workers in ((signal.SIGTTIN, 2), (signal.SIGTTIN, 3), (signal.SIGTTOU, 2), (signal.SIGTTOU, 1)):
            served.signal(number)
            await until_up(served, workers)
            await until_more(served, history)
        served.signal(signal.SIGTTOU)
        await until_more(served, history)
    assert len(served.workers()) == 1
    await assert_nothing_lost(served, history)
    assert await served.stop() == 0, served.log()
    assert await served.fetch("select 1 from stock_lease where state = 'active'") == []


async def test_workers_replaced_under_load_are_all_new_and_lose_nothing(served: Served) -> None:
    await served.start(workers=2)
    await until_up(served, 2)
    before = served.workers()
    async with buying(served) as history:
        served.signal(signal.SIGHUP)

        async def are_new() -> bool:
            return not served.workers() & before

        await until("all workers are new", are_new, served)
        await until_up(served, 2)
        await until_more(served, history)
    await assert_nothing_lost(served, history)


async def test_metrics_of_every_worker_equal_the_table_even_of_those_that_left(served: Served) -> None:
    await served.start(workers=3)
    await until_up(served, 3)
    history = await Buyers(served.url, served.token, "A", together=24, run="count", orders=600).buy()

    async def all_equal() -> bool:
        said = [(await metrics(served)).get("floodgate_orders_created_total") for _ in range(ASKED)]
        ((orders,),) = await served.fetch("select count(*) from orders")
        return set(said) == {float(orders)}

    assert len(history.accepted) == 600
    await until("every worker says what the table says", all_equal, served)
    for workers in (2, 1):
        served.signal(signal.SIGTTOU)
        await until_up(served, workers)
    await until("those that left are counted", all_equal, served)


async def test_workers_end_when_their_supervisor_is_killed(served: Served) -> None:
    await served.start(workers=3)
    await until_up(served, 3)
    async with buying(served) as history:
        await until_more(served, history)
        await served.stop(signal.SIGKILL)

        async def are_gone() -> bool:
            return not served.workers()

        await until("no worker is left", are_gone, served)
    await served.start()
    await assert_nothing_lost(served, history)


async def test_serve_settings_that_a_worker_refuses_end_it_with_2(served: Served) -> None:
    process = served.spawn("serve", "--port", "0", "--workers", "2", FLOODGATE_SECRETS__HASH_KEY="short")
    assert await asyncio.to_thread(process.wait, WAIT_S) == 2
    assert "secrets.hash_key" in served.log()


async def test_serve_port_of_somebody_else_ends_it_with_1(served: Served) -> None:
    await served.start()
    port = served.url.rpartition(":")[2]
    process = served.spawn("serve", "--port", port)
    assert await asyncio.to_thread(process.wait, WAIT_S) == 1
    assert f"port {port} is in use (pid" in served.log()
    assert await workers_up(served) == 1
