"""A running steward's metrics: what waits in the ledger, and the jobs that see to it."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from deploy.local.ports import pick_free
from tests.unit.test_steward_metrics import samples
from tests.worker_world import World, eventually, open_world, order_id_of


@pytest.fixture
async def world(postgres_url: str, nats_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url, nats_url) as world:
        await world.product(units=100)
        yield world


async def test_steward_metrics_show_the_outbox_and_the_jobs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.steward.METRICS_EVERY_S", 0.05)
    port = pick_free()
    url = f"http://127.0.0.1:{port}/metrics"
    shop = await world.shop()
    await world.remove_stream()
    order_id_of(await shop.place())
    world.steward(steward__metrics_port=port, nats__ack_timeout_ms=60_000)
    found: dict[tuple[str, str], float] = {}

    async def shows(name: str, value: float) -> bool:
        nonlocal found
        try:
            async with aiohttp.ClientSession() as client, client.get(url) as answer:
                found = samples(await answer.text())
        except aiohttp.ClientError:
            return False
        return found.get((name, ""), -1.0) == value

    await eventually("the commit waits", lambda: shows("floodgate_outbox_batches", 1))
    assert found["floodgate_outbox_oldest_seconds", ""] > 0
    assert found["floodgate_partitions_ahead_seconds", ""] > 0
    assert found["floodgate_steward_jobs_total", "metrics"] >= 1
    assert found["floodgate_steward_job_failures_total", "settings"] == 0
