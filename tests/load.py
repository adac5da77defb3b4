"""Buyers for the tests: many at once over HTTP, each with a key of its own, and a history of what they were told that
lives outside the system.

Bounded in number and time. An answer that never came is `unknown`: the order may or may not exist, and only asking
again with the same key tells.
"""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import aiohttp

ANSWER_TIMEOUT_S = 15.0


@dataclass
class History:
    """What the buyers were told, by key: the bodies of 201, the codes of refusals, and the keys without an answer."""

    accepted: dict[str, bytes] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)

    def order_ids(self) -> set[str]:
        return {json.loads(body)["order_id"] for body in self.accepted.values()}


def order(sku: str, quantity: int = 1, **fields: Any) -> dict[str, Any]:
    return {"channel": "app", "currency": "CNY", "items": [{"sku": sku, "quantity": quantity}], **fields}


class Buyers:
    """Place orders at `url` until told to stop, or until `orders` of them have been placed."""

    def __init__(
        self, url: str, token: str, sku: str, *, together: int, run: str, orders: int = 1_000_000, quantity: int = 1
    ) -> None:
        self.history = History()
        self._url = url
        self._token = token
        self._sku = sku
        self._together = together
        self._run = run
        self._left = orders
        self._quantity = quantity
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    async def buy(self) -> History:
        connector = aiohttp.TCPConnector(limit=self._together)
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        headers = {"Authorization": f"Bearer {self._token}"}
        async with aiohttp.ClientSession(headers=headers, connector=connector, timeout=timeout) as session:
            await asyncio.gather(*(self._one(session, number) for number in range(self._together)))
        return self.history

    async def _one(self, session: aiohttp.ClientSession, number: int) -> None:
        count = 0
        while not self._stopped and self._left > 0:
            self._left -= 1
            count += 1
            await self.place(session, f"{self._run}-{number}-{count}")

    async def place(self, session: aiohttp.ClientSession, key: str) -> None:
        try:
            async with session.post(
                f"{self._url}/v1/orders", json=order(self._sku, self._quantity), headers={"Idempotency-Key": key}
            ) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            self.history.unknown.add(key)
            await asyncio.sleep(0.01)
            return
        if answer.status == 201:
            self.history.accepted[key] = body
        else:
            self.history.refused[key] = json.loads(body)["code"]
            await asyncio.sleep(0.01)


async def ask_again(url: str, token: str, sku: str, keys: set[str], quantity: int = 1) -> History:
    """Place the orders of these keys once more, one attempt each."""
    again = Buyers(url, token, sku, together=1, run="again", quantity=quantity)
    async with aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {token}"}, timeout=aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
    ) as session:
        for key in sorted(keys):
            await again.place(session, key)
    return again.history
