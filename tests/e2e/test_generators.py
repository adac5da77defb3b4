"""What a benchmark engineer runs directly: wrk with our scripts, and Locust. Five seconds each against a served
gateway; what they say is held against the ledger, and how fast it was is nobody's business here.
"""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.served import Served
from tests.tools import needs_wrk

BENCH = Path(__file__).parents[2] / "bench"
SECONDS = 5
SKU = "FLASH-001"
STATUS = re.compile(r"^HTTP (\d+): (\d+)$", re.MULTILINE)


@pytest.fixture
async def served(postgres_url: str, nats_url: str, redis_url: str) -> AsyncIterator[Served]:
    gateway = Served(postgres_url, nats_url, redis_url)
    await gateway.prepare({SKU: 1_000_000, "FEW": 3})
    await gateway.start()
    yield gateway
    await gateway.close()


async def run(served: Served, *command: str, **variables: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        env=os.environ | {"TOKEN": served.token, **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), SECONDS + 60)
    assert process.returncode == 0, said.decode()
    return said.decode()


async def wrk(served: Served, script: str, **variables: str) -> dict[int, int]:
    """The answers by status."""
    command = ["wrk", "-t1", "-c8", f"-d{SECONDS}s", "-s", str(BENCH / "wrk" / script), served.url]
    said = await run(served, *command, **variables)
    return {int(status): int(count) for status, count in STATUS.findall(said)}


async def rows(served: Served, condition: str = "true") -> int:
    (row,) = await served.fetch(f"select count(*) from orders where {condition}")
    return int(row[0])


@needs_wrk
async def test_wrk_orders_says_what_the_ledger_has(served: Served) -> None:
    answers = await wrk(served, "order.lua", SKU=SKU)
    assert answers.keys() == {201}
    assert 0 < answers[201] <= await rows(served) <= answers[201] + 8


@needs_wrk
async def test_wrk_journey_goes_through_every_step(served: Served) -> None:
    answers = await wrk(served, "journey.lua", SKU=SKU, CANCEL="2")
    assert answers.keys() == {200, 201}
    assert 0 < answers[201] <= await rows(served) <= answers[201] + 8
    cancelled = await rows(served, "status = 'cancelled'")
    assert answers[200] >= 2 * answers[201] + cancelled - 3 * 8 > 0
    assert cancelled


@needs_wrk
async def test_wrk_show_finds_every_order(served: Served, tmp_path: Path) -> None:
    await wrk(served, "order.lua", SKU=SKU)
    shown = tmp_path / "ids"
    shown.write_text("".join(f"{row[0]}\n" for row in await served.fetch("select order_id from orders limit 100")))
    assert (await wrk(served, "show.lua", SHOWN=str(shown))).keys() == {200}


async def locust(served: Served, folder: Path, sku: str, cancel: int) -> dict[str, int]:
    """Requests without a failure by step."""
    command = [sys.executable, "-m", "locust", "-f", str(BENCH / "locustfile.py"), "--headless", "--only-summary"]
    # Not its CSV, which is written once a second and lacks the last one.
    options = ["-u", "8", "-r", "8", "-t", f"{SECONDS}s", "--host", served.url, "--json-file", str(folder / "journey")]
    await run(served, *command, *options, SKU=sku, CANCEL=str(cancel))
    steps = json.loads((folder / "journey.json").read_bytes())
    assert [step["name"] for step in steps if step["num_failures"]] == []
    return {step["name"]: step["num_requests"] for step in steps}


async def test_locust_journey_goes_through_every_step(served: Served, tmp_path: Path) -> None:
    steps = await locust(served, tmp_path, SKU, cancel=2)
    assert {"availability", "order", "look at the order", "cancel"} <= steps.keys()
    assert 0 < steps["order"] <= await rows(served) <= steps["order"] + 8


async def test_locust_journey_counts_no_refusal_as_an_order(served: Served, tmp_path: Path) -> None:
    steps = await locust(served, tmp_path, "FEW", cancel=0)
    assert steps["order"] == await rows(served) == 3
