"""Whatever a client sends as a body, the answer is one of the contract's, and never a 500: the road from edge to queue
on 20,000 seeded random bodies.

The road is the real one, with both twins' rules; only the ledger is replaced, by one that takes everything.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from core_ext.codes import PROBLEMS
from core_ext.shapes import ItemIn, OrderIn, Product
from gateway.access import Access
from gateway.admission import Admission
from gateway.batch import BatchQueue
from gateway.catalogue import Catalogue
from gateway.clock import Clock
from gateway.domain.access import Client, token_hash
from gateway.domain.keys import Hasher
from gateway.domain.outcomes import Accepted
from gateway.domain.personal import Vault
from gateway.edge.hot import OrderRoute
from gateway.edge.requests import Headers
from gateway.journaling import Journaling
from gateway.leases import Leases
from gateway.live import Live
from gateway.lookup import KeyLookup
from gateway.metrics import Counters
from gateway.orders import OrderBook
from gateway.rates import Rates
from gateway.requests_log import RequestLog
from gateway.sales import Sales
from gateway.settings import Settings
from gateway.tasks import Tasks
from persistence.postgres.orders import StoredKey
from persistence.postgres.session import Session
from tests.unit.fakes import FakeBell

BODIES = 20_000
BODIES_AN_EXAMPLE = 20

ODD_TEXT = st.sampled_from(
    [
        "",
        "\x00",
        "a\x07b",
        "é",
        "请放门口",
        "\u2028",
        "x" * 2000,
        "../..",
        "'; drop table orders",
        "\U0001f381",
        "CNY",
        "A",
        "app",
    ]
)
ODD_NUMBERS = st.sampled_from([0, 1, -1, 6, 10**6, 10**6 + 1, 2**53, 2**63, 10**400, 1.0, 0.1, -0.0, 1e308])
LEAVES: st.SearchStrategy[Any] = st.one_of(st.none(), st.booleans(), ODD_NUMBERS, ODD_TEXT, st.text(max_size=8))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(ODD_TEXT, inner, max_size=3)),
    max_leaves=6,
)
FIELDS = [*OrderIn.__struct_fields__, *ItemIn.__struct_fields__, "odd"]
PLAIN = {
    "channel": "app",
    "currency": "CNY",
    "items": [{"sku": "A", "quantity": 1}],
    "customer_id": "u-1",
    "note": "请放门口",
}


@st.composite
def orders(draw: st.DrawFn) -> bytes:
    """A plain order in which some fields were replaced, at both levels."""
    order = dict(PLAIN)
    for field in draw(st.lists(st.sampled_from(FIELDS), max_size=3)):
        order[field] = draw(VALUES)
    item = {"sku": "A", "quantity": 1} | {
        field: draw(VALUES) for field in draw(st.lists(st.sampled_from(FIELDS), max_size=2))
    }
    if draw(st.booleans()):
        order["items"] = [item] * draw(st.sampled_from([1, 1, 1, 2, 1001]))
    return json.dumps(order, ensure_ascii=draw(st.booleans())).encode()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An order whose bytes were cut, doubled or replaced somewhere."""
    body = bytearray(draw(orders())[:4000])
    at = draw(st.integers(0, len(body)))
    piece = draw(
        st.one_of(
            st.binary(max_size=4),
            st.sampled_from([b"\xff", b"\xed\xa0\x80", b"[" * 3000, b'{"a":' * 2000, b"9" * 5000, b"\\u0000", b"NaN"]),
        )
    )
    return bytes(body[:at] + piece + body[at + draw(st.integers(0, 3)) :])


ANY_BODY = st.one_of(orders(), orders(), damaged(), st.binary(max_size=64))


class Road:
    """Edge, admission and queue of one client, before a ledger that takes everything."""

    def __init__(self, scopes: set[str]) -> None:
        options = Settings()
        clock, catalogue, access, self.queue = Clock(), Catalogue(), Access(), BatchQueue(options.batch)
        clock.observe(clock.now_s(), time.monotonic(), time.monotonic())
        catalogue.revision = 0
        catalogue.products = {"A": Product("A", "Tea", 100, "CNY", stocked=False)}
        access.replace([(token_hash("t"), Client(1, "shop", frozenset(scopes), frozenset({"*"})))])
        live, counters = Live(options), Counters()
        # Nothing is stocked, so nothing is asked for.
        leases = Leases(Session("", "unused"), clock, live, FakeBell(), counters)
        journaling = Journaling(options.journal, live, clock, counters)
        unused_book = cast("OrderBook", None)
        keys = KeyLookup(self._nothing)
        vault, hasher = Vault({1: bytes(32)}), Hasher(bytes(32))
        sales = Sales(Session("", "unused"), clock, catalogue, leases)
        sales.revision = 0
        admission = Admission(
            options, clock, catalogue, leases, self.queue, unused_book, keys, vault, hasher, Tasks(), sales, journaling
        )
        admission.open = True
        self._lookup = admission.lookup
        rates = Rates(lambda _: None, hasher, None, counters)
        log = RequestLog(options.log, counters)
        self._route = OrderRoute(options.http, access, clock, admission, counters, rates, log)
        self._keys = 0

    async def statuses(self, bodies: list[bytes]) -> list[int]:
        loops = [asyncio.create_task(self._commit()), asyncio.create_task(self._lookup.run())]
        answers = [await self._place(body) for body in bodies]
        for loop in loops:
            loop.cancel()
        return answers

    async def _place(self, body: bytes) -> int:
        self._keys += 1
        headers = Headers(b"Bearer t", b"application/json", b"key-%d" % self._keys, None, len(body), 1)

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": body, "more_body": False}

        answer = await self._route.respond(headers, receive)
        if answer.status >= 400:
            problem = json.loads(answer.body)
            assert PROBLEMS[problem["code"]].status == answer.status
            assert all(set(error) >= {"detail", "pointer", "code"} for error in problem.get("errors", []))
        return answer.status

    async def _commit(self) -> None:
        while batch := await self.queue.take():
            for pending in batch:
                pending.answer(Accepted(pending.entry.order_id, pending.body))

    async def _nothing(self, _keys: Sequence[bytes]) -> dict[bytes, StoredKey]:
        return {}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scopes", [{"orders:write"}, {"orders:write", "orders:price"}], ids=["plain", "pricing"])
def test_order_route_any_body_never_answers_500(scopes: set[str]) -> None:
    seen: Counter[int] = Counter()

    @seed(20261123)
    @settings(
        max_examples=BODIES // BODIES_AN_EXAMPLE // 2,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(ANY_BODY, min_size=BODIES_AN_EXAMPLE, max_size=BODIES_AN_EXAMPLE))
    def check(bodies: list[bytes]) -> None:
        statuses = asyncio.run(Road(scopes).statuses(bodies))
        assert set(statuses) <= {201, 400, 413, 422}
        seen.update(statuses)

    check()
    assert seen.total() >= BODIES // 2
    assert {201, 400, 422} <= seen.keys()
