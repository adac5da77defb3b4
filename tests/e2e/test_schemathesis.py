"""A served gateway against its own OpenAPI document, by Schemathesis: every operation, with requests that the document
allows and with ones that it does not, alone and one after another along the links.

`FLOODGATE_CASES=20000` asks for about so many cases. The seed is the one that pytest-randomly prints.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.access import SCOPES, token_hash
from tests.served import Served

CASES = int(os.environ.pop("FLOODGATE_CASES", "2500"))  # The gateway would take it for a setting.
# About: what any run has, and what it has more with each example per operation (many operations have few cases).
CASES_MIN = 2000
CASES_PER_EXAMPLE = 30
RUN_S = 60 + CASES / 10
HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
# A change without If-Match is 428, as RFC 6585 has it; any 4xx refuses a request that is not valid.
CONFIG = """
request-timeout = 30.0
continue-on-failure = true
hooks = "{hooks}"

[auth.openapi.token]
bearer = "{token}"

[generation]
database = "none"
dictionaries.string = {{ dictionary = "words", probability = 0.3 }}

[cache]
enabled = false

[output.sanitization]
enabled = false

[phases.stateful]
max-steps = 30

# So that many requests speak of what is there.
[dictionaries]
words.values = ["85123A", "22423", "CNY", "double-11", "app"]
skus.values = ["85123A", "22423"]
sales.values = ["double-11"]
clients.values = ["app", "buyers"]

[parameters]
sku = {{ dictionary = "skus", probability = 0.7 }}
sale_id = {{ dictionary = "sales", probability = 0.5 }}
name = {{ dictionary = "clients", probability = 0.7 }}

[checks]
missing_required_header.expected-statuses = [400, 401, 403, 415, 422, 428]
negative_data_rejection.expected-statuses = ["4xx"]
"""
STILL_THERE = """
select from api_token join api_client using (client_id)
where token_hash = $1 and revoked_at is null and cardinality(scopes) = $2
"""


@pytest.fixture
async def served(postgres_url: str, nats_url: str) -> AsyncIterator[Served]:
    gateway = Served(postgres_url, nats_url)
    try:
        await gateway.prepare({"85123A": 1_000_000, "22423": 1_000_000})
        await gateway.start()
        yield gateway
    finally:
        await gateway.close()


def run(served: Served, folder: Path) -> tuple[dict[str, Any], str]:
    """The report of a run, and what it printed."""
    config, report = folder / "schemathesis.toml", folder / "report.json"
    config.write_text(CONFIG.format(hooks=HOOKS, token=served.token))
    arguments = [
        *("--config-file", str(config), "run", f"{served.url}/schema/openapi.json", "--checks", "all", "--no-color"),
        *(
            "--seed",
            str(random.getrandbits(32)),
            "--max-examples",
            str(max(1, (CASES - CASES_MIN) // CASES_PER_EXAMPLE)),
        ),
        *("--report", "json", "--report-json-path", str(report)),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    return json.loads(report.read_text()), done.stdout


@pytest.mark.timeout(RUN_S + 60)
async def test_gateway_against_its_document_keeps_every_promise(served: Served, tmp_path: Path) -> None:
    report, printed = await asyncio.to_thread(run, served, tmp_path)
    print(printed)
    assert report["exit_code"] == 0, report["failures"]
    assert report["operations"]["tested"] == report["operations"]["total"]
    assert report["test_cases"]["generated"] >= CASES
    assert await served.fetch(STILL_THERE, token_hash(served.token), len(SCOPES)), "the client was locked out"
    assert "request_failed" not in served.log()
    assert "order_failed" not in served.log()
