"""The demo catalogue: a few products with stock, loaded over HTTP as a merchant would, so that the first order works
when pasted.

Only what does not exist yet is made; nothing that somebody changed is ever overwritten.
"""

import csv
import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from deploy.local.edge import Answer, request
from deploy.local.failure import StackError

FILE = Path(__file__).with_name("demo.csv")
SKU = "TEA-001"  # What the printed order buys.


class Row(NamedTuple):
    sku: str
    title: str
    price: int
    currency: str
    units: int


def rows() -> Iterator[Row]:
    with FILE.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield Row(row["sku"], row["title"], int(row["price"]), row["currency"], int(row["units"]))


class Demo:
    """Loads the rows through the edge at `url`."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token

    def accepted(self) -> bool:
        """Whether the edge knows the token yet: a new one takes up to a second."""
        return self._ask("GET", "/v1/products?limit=1").status == http.client.OK

    def load(self) -> None:
        for row in rows():
            self._ensure(
                f"/v1/products/{quote(row.sku, safe='')}",
                {"title": row.title, "price": row.price, "currency": row.currency},
            )
            self._ensure(f"/v1/stock/{quote(row.sku, safe='')}", {"total": row.units})

    def _ensure(self, path: str, body: dict[str, Any]) -> None:
        found = self._ask("GET", path)
        if found.status == http.client.NOT_FOUND:
            found = self._ask("PUT", path, body)
        if found.status not in (http.client.OK, http.client.CREATED):
            raise StackError(
                f"the demo catalogue could not be loaded: {path} answers {found.status}: {found.text.strip()}"
            )

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        return request(self._url, method, path, token=self._token, body=body)
