"""A flash sale as buyers live it, for Locust: look whether the product is there, order it, look at the order, and pay
later, or cancel it. `TOKEN=fg_... locust -f bench/locustfile.py --host http://127.0.0.1:8080`.

It promises that a step is named by what became of it, so that a refusal is never counted as an order: `order` are
orders, `order: sold_out` is not one. A refusal that may be retried is retried with the same key after its Retry-After.
"""

import os
import random
import secrets
import sys
from http import HTTPStatus
from typing import Any

import gevent
from locust import FastHttpUser, between, task

TOKEN = os.environ.get("TOKEN") or sys.exit("set TOKEN, of a client with the scopes orders:write and orders:read")
SKU = os.environ.get("SKU", "FLASH-001")
ONE_IN = int(os.environ.get("CANCEL", "10"))  # orders, of which one is cancelled; 0: none is
TRIES_MAX = 3
# Refusals that are no faults of the gateway: a sale has them by the thousand.
HONEST = {"sold_out", "stock_returning", "overloaded", "limit_reached", "rate_limited", "sale_not_open", "sale_closed"}
BUYER = {
    "note": "请放在门口，到货前请先打电话，谢谢您了。",
    "ship_to": {
        "name": "王小明",
        "phone": "13800000000",
        "country": "CN",
        "province": "浙江省",
        "city": "杭州市",
        "district": "西湖区",
        "street": "文三路 1 号",
        "postcode": "310012",
    },
}


class Buyer(FastHttpUser):
    """One buyer after the other, each with a customer id of his own, on one connection."""

    wait_time = between(0.1, 1.0)

    def on_start(self) -> None:
        self.headers = {"Authorization": f"Bearer {TOKEN}"}

    @task
    def buy(self) -> None:
        """From the product's page to the order, or to the news that there is none."""
        if not self.is_there():
            return
        order_id = self.order()
        if order_id is None:
            return
        version = self.look_at(order_id)
        if version and ONE_IN and random.randrange(ONE_IN) == 0:  # noqa: S311 - no secret
            self.cancel(order_id, version)

    def is_there(self) -> bool:
        """Whether it looks as if there were some left."""
        answer = self.client.get(f"/v1/availability?sku={SKU}", headers=self.headers, name="availability")
        return answer.status_code == HTTPStatus.OK and answer.json()["items"][0]["availability"] != "sold_out"

    def order(self) -> str | None:
        """The id of the order, if there is one in the end."""
        buyer = secrets.token_hex(8)
        body = {
            "channel": "app",
            "currency": "CNY",
            "customer_id": f"u-{buyer}",
            "items": [{"sku": SKU, "quantity": 1}],
            **BUYER,
        }
        headers = self.headers | {"Idempotency-Key": buyer}
        for _ in range(TRIES_MAX):
            with self.client.post(
                "/v1/orders", json=body, headers=headers, name="order", catch_response=True
            ) as answer:
                if answer.status_code == HTTPStatus.CREATED:
                    return str(answer.json()["order_id"])
                tell(answer)
            if "retry-after" not in answer.headers:
                return None
            gevent.sleep(float(answer.headers["retry-after"]))
        return None

    def look_at(self, order_id: str) -> str | None:
        """The version of the order, to change it by."""
        answer = self.client.get(f"/v1/orders/{order_id}", headers=self.headers, name="look at the order")
        return str(answer.headers["etag"]) if answer.headers and answer.status_code == HTTPStatus.OK else None

    def cancel(self, order_id: str, version: str) -> None:
        headers = self.headers | {"If-Match": version}
        self.client.post(
            f"/v1/orders/{order_id}/cancel", json={"reason": "changed my mind"}, headers=headers, name="cancel"
        )


def tell(answer: Any) -> None:
    """Name a refusal by its code. One that a sale is full of is no failure."""
    code = answer.json().get("code") if answer.status_code else None
    if code in HONEST:
        answer.request_meta["name"] = f"order: {code}"
        answer.success()
