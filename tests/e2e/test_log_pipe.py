"""Standard error that nobody reads stops no gateway: lines are dropped and counted, and orders go on."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.load import order
from tests.served import Served

TOGETHER = 50  # requests of one round; each has a line of more than 150 bytes, and a pipe holds 64 KiB
ROUNDS_MAX = 1000
DROPPED = "floodgate_log_lines_dropped_total"


@pytest.fixture
async def unread(
    postgres_url: str, nats_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Served]:
    """A gateway whose standard error is a pipe with a reader that never reads."""
    for name, value in (("LEVEL", "debug"), ("SAMPLE_RATIO", "1"), ("REQUESTS_PER_S_MAX", "10000")):
        monkeypatch.setenv(f"FLOODGATE_LOG__{name}", value)
    gateway = Served(postgres_url, nats_url)
    gateway._log.unlink()
    os.mkfifo(gateway._log)
    reader = os.open(gateway._log, os.O_RDONLY | os.O_NONBLOCK)
    await gateway.prepare({"A": 1000})
    await gateway.start()
    yield gateway
    await gateway.close()
    os.close(reader)


async def dropped(client: aiohttp.ClientSession) -> float:
    async with client.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{DROPPED} "))


async def test_serve_whose_log_nobody_reads_sells_on(unread: Served) -> None:
    async with aiohttp.ClientSession(unread.url, headers={"Authorization": f"Bearer {unread.token}"}) as client:
        for _ in range(ROUNDS_MAX):
            answers = await asyncio.gather(*(client.get("/v1/nothing") for _ in range(TOGETHER)))
            assert {answer.status for answer in answers} == {404}
            if await dropped(client):
                break
        assert await dropped(client) > 0
        async with client.post("/v1/orders", json=order("A"), headers={"Idempotency-Key": "after"}) as answer:
            assert answer.status == 201
    assert await unread.stop() == 0
