"""No personal data and no secret where none belongs: canaries go in by every way there is, and everything that the
system writes is searched for them as bytes. A marker that may be seen proves that the search finds what is there.
"""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from redis.asyncio import Redis

from deploy.local.folder import UP_LOG
from deploy.local.ports import pick_free
from tests.local_system import Local

MARK = "canary7Kq"
SEEN = "visible7Kq"
ITEM = {"sku": "TEA-001", "quantity": 1}
SHIP_TO = ("name", "phone", "province", "city", "district", "street", "postcode")
LOOK_AGAIN_S = 0.1
WAIT_S = 30.0
ENVIRONMENT = {
    "FLOODGATE_LOG__LEVEL": "debug",
    "FLOODGATE_LOG__SAMPLE_RATIO": "1",
    "FLOODGATE_LOG__REQUESTS_PER_S_MAX": "10000",
    "FLOODGATE_HTTP__WORKERS": "1",
}

Answers = list[tuple[int, str]]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    made = Local(
        tmp_path_factory.mktemp("personal"), ENVIRONMENT | {"FLOODGATE_STEWARD__METRICS_PORT": str(pick_free())}
    )
    made.up()
    yield made
    made.run("down")
    made.folder.wipe()


def order(**changes: Any) -> dict[str, Any]:
    """An order whose personal fields all hold canaries."""
    ship_to = {field: f"{MARK}-{field}" for field in SHIP_TO}
    return {"channel": "app", "currency": "CNY", "items": [ITEM], "note": f"{MARK}-note", "ship_to": ship_to} | changes


class Buyer:
    """Sends requests, and keeps what was answered."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.answers: Answers = []

    async def ask(
        self, method: str, path: str, key: str = "", headers: dict[str, str] | None = None, **body: Any
    ) -> str:
        named = ({"Idempotency-Key": key} if key else {}) | (headers or {})
        async with self._session.request(method, path, headers=named, **body) as answer:
            text = await answer.text()
            self.answers.append((answer.status, text))
            return text

    async def order(self, key: str | None = None, headers: dict[str, str] | None = None, **changes: Any) -> str:
        return await self.ask("POST", "/v1/orders", key or str(uuid.uuid4()), headers, json=order(**changes))


async def send_everything(buyer: Buyer) -> None:
    """Canaries by every way that a request has, good and bad."""
    key = f"{MARK}-key-0123456789abcdef"
    await buyer.order(key, external_id=SEEN)
    await buyer.order(key, external_id=SEEN)
    await buyer.order(key, note=f"{MARK}-another")
    await buyer.order(items=[{"sku": "TEA-001", "quantity": 1_000_000}])
    await buyer.order(items=[{"sku": f"{MARK}-sku", "quantity": 1}])
    await buyer.order(note={"of": MARK})
    await buyer.order(note=MARK * 1000)
    await buyer.order(ship_to={"name": MARK, "city": 7})
    await buyer.order(ship_to=MARK)
    await buyer.order(ship_to={MARK: MARK})
    await buyer.ask("POST", "/v1/orders", str(uuid.uuid4()), json=order() | {MARK: MARK})
    await buyer.order(currency=MARK, channel=MARK)
    await buyer.order(metadata={"k": {"v": MARK}})
    await buyer.order(key=f"{MARK} with spaces")
    await buyer.order(headers={"Authorization": f"Bearer fg_{MARK}"})
    await buyer.order(headers={"Content-Type": f"text/{MARK}"})
    await buyer.order(headers={"traceparent": MARK, "tracestate": MARK, "User-Agent": MARK, "Cookie": MARK})
    for body in (f'{{"note":"{MARK}', f'"{MARK}"', f'{{"note":"{MARK}","note":"{MARK}"}}', MARK * 20_000):
        headers = {"Content-Type": "application/json"}
        await buyer.ask("POST", "/v1/orders", str(uuid.uuid4()), headers, data=body.encode())
        await buyer.ask("PUT", "/v1/products/P-1", "", headers, data=body.encode())
        await buyer.ask("PATCH", "/v1/stock/TEA-001", "", headers, data=body.encode())
        await buyer.ask("PUT", "/v1/sales/s-1", "", headers, data=body.encode())
    for path in ("/v1/orders", "/v1/products", "/v1/stock", "/v1/availability", "/v1/sales", "/metrics", "/readyz"):
        await buyer.ask("GET", f"{path}?{MARK}={MARK}")
        await buyer.ask("GET", f"{path}/{MARK}")
        await buyer.ask("GET", path, headers={"Authorization": f"Bearer {MARK}"})
    for name in ("cursor", "channel", "status", "limit", "customer_id"):
        await buyer.ask("GET", f"/v1/orders?{name}={MARK}")
    await buyer.ask(MARK.upper(), "/v1/orders")


async def tables(url: str) -> AsyncIterator[str]:
    """Every row of every table, as text."""
    connection = await asyncpg.connect(url)
    try:
        names = await connection.fetch(
            "select c.oid::regclass::text as name from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "where c.relkind = 'r' and n.nspname not in ('pg_catalog', 'information_schema')"
        )
        for row in names:
            for found in await connection.fetch(f"select t::text as text from {row['name']} t"):
                yield f"{row['name']}: {found['text']}"
    finally:
        await connection.close()


async def redis_dump(url: str) -> list[bytes]:
    """Every key and its value, serialised by the server."""
    async with Redis.from_url(url) as client:
        keys = [key async for key in client.scan_iter()]
        return [key + b" " + (await client.dump(key) or b"") for key in keys]


def files(*folders: Path) -> Iterable[Path]:
    return (path for folder in folders for path in folder.rglob("*") if path.is_file())


def holding(paths: Iterable[Path], text: str) -> list[Path]:
    """The files that hold it, as text or as the hexadecimal digits that PostgreSQL writes bytes in."""
    return [
        path for path in paths if text.encode() in (data := path.read_bytes()) or text.encode().hex().encode() in data
    ]


async def settled(postgres_url: str) -> None:
    """All events are out."""
    connection = await asyncpg.connect(postgres_url)
    try:
        async with asyncio.timeout(WAIT_S):
            while await connection.fetchval("select exists (select from outbox)"):
                await asyncio.sleep(LOOK_AGAIN_S)
        await connection.execute("checkpoint")
    finally:
        await connection.close()


async def page_of(url: str, token: str = "") -> str:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        assert answer.status == 200
        return await answer.text()


async def test_personal_data_and_secrets_are_nowhere_but_in_the_orders(local: Local) -> None:
    report = local.status()
    folder = local.folder
    bearer = {"Authorization": f"Bearer {report['token']}"}
    async with aiohttp.ClientSession(report["http"], headers=bearer) as session:
        buyer = Buyer(session)
        await send_everything(buyer)
        first, again, *_ = buyer.answers
        assert (first[0], again[0]) == (201, 201), buyer.answers[:3]
        assert f"{MARK}-street" in first[1] or "*" in first[1]
        assert 500 not in {status for status, _ in buyer.answers}
    await settled(report["postgres"])

    metrics = await page_of(f"{report['http']}/metrics", report["token"])
    steward = await page_of(f"http://127.0.0.1:{local.environment['FLOODGATE_STEWARD__METRICS_PORT']}/metrics")
    rows = [row async for row in tables(report["postgres"])]
    dumped = await redis_dump(report["redis"])
    for secret in (MARK, MARK.upper(), report["token"]):
        assert secret not in metrics + steward
        assert [row for row in rows if secret in row or secret.encode().hex() in row] == []
        assert [row for row in dumped if secret.encode() in row] == []
        written = files(folder.logs, folder.nats, folder.valkey, folder.postgres)
        found = {path.name for path in holding(written, secret)}
        # The page of `up` shows the token to whoever has started it; with --detach it is kept as well.
        assert found - ({UP_LOG} if secret == report["token"] else set()) == set()

    logs = "".join(path.read_text(errors="replace") for path in files(folder.logs))
    assert len(re.findall(r'"event":"request"', logs)) >= len(buyer.answers)
    assert [row for row in rows if SEEN in row]
    assert holding(files(folder.nats), SEEN)
    assert holding(files(folder.postgres), SEEN)
    assert dumped
