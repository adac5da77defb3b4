"""The system under test: a whole local system of the bench's own, as `floodgate up` makes it, on a folder that is
deleted afterwards.

It promises that nothing of it is left running or on the disk, after Ctrl-C neither; it never touches a system that
somebody else has started. What is asked beside the load goes through the edge, as everybody's questions do.
"""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from bench import usage, workload
from bench.failure import ScenarioError
from deploy.local.edge import Answer, read_token, request
from deploy.local.folder import DataFolder
from deploy.local.stack import COMMAND
from gateway.channels.feed import Goods
from gateway.cli.edge import Edge
from gateway.cli.preparing import at_once, ensure_goods
from gateway.settings import CONFIG_VARIABLE
from persistence.postgres.connect import connect

COMMAND_TIMEOUT_S = 120.0
WORKERS_TIMEOUT_S = 40.0
QUIET_TIMEOUT_S = 30.0
QUIET_LOOK_S = 0.3
QUIET_SHARE = 0.10  # of one core, of all processes of the system together
LOOK_AGAIN_S = 0.1
SEGMENT_MIB = 16  # of PostgreSQL's write-ahead log
# An order of the first round must not expire in the middle of the tenth one; and a commit that takes long, or is held
# on purpose, keeps its orders rather than send them to the journal: only rows count.
ENVIRONMENT = {"FLOODGATE_ORDERS__PAYMENT_TIMEOUT_S": "86400", "FLOODGATE_JOURNAL__PATIENCE_MS": "60000"}
# What would make it another system than one of its own.
NOT_TAKEN = (
    "FLOODGATE_POSTGRES__URL",
    "FLOODGATE_REDIS__URL",
    "FLOODGATE_NATS__URL",
    "FLOODGATE_DATA",
    CONFIG_VARIABLE,
)
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ROLES = {
    "serve": "worker",
    "postgres": "postgres",
    "nats": "nats",
    "valkey": "redis",
    "steward": "steward",
    "projector": "projector",
    "up": "supervisor",
}


class System:
    """A running system. Roles are those of the record; `worker` is the gateway with all its workers."""

    def __init__(self, folder: DataFolder, workers: int) -> None:
        record = folder.run()
        self.folder = folder
        self.url: str = record["http"]
        self.postgres_url: str = record["postgres"]
        self.redis_url: str = record["redis"]
        self.nats_url: str = record["nats"]
        self.token = read_token(folder.token)
        self.workers = workers

    @property
    def pids(self) -> dict[str, int]:
        """The first process of each role."""
        pids = {ROLES.get(name, name): pid for name, pid in self.folder.run()["pids"].items()}
        # The supervisor of the stack is the parent of all others, whose time is not its own.
        pids.pop("supervisor")
        return pids

    def try_ask(self, method: str, path: str, body: Any = None, key: str = "") -> Answer:
        """One question through the edge."""
        return request(
            self.url, method, path, token=self.token, body=body, headers={"Idempotency-Key": key} if key else {}
        )

    def ask(self, method: str, path: str, body: Any = None, key: str = "") -> Any:
        """A question that has to succeed; its answer's document. Raises ScenarioError."""
        answer = self.try_ask(method, path, body, key)
        if not 200 <= answer.status < 300:
            raise ScenarioError(f"{method} {path}: {answer.status} {answer.text}")
        return json.loads(answer.text)

    def metrics(self) -> dict[str, float]:
        """The gateway's metrics of all workers, by name with its labels; empty when it does not answer."""
        return parse_metrics(self.try_ask("GET", "/metrics").text)

    def ensure_goods(self, goods: Sequence[Goods]) -> None:
        """Make products and their stock, where they are not there yet, and wait until orders of the last one are
        taken or refused by what they ask for.
        """
        asyncio.run(_ensure_all(self.url, self.token, goods))
        sku, heard = goods[-1].sku, [""]
        try:
            self.until(lambda: self._knows(sku, heard), f"the gateway to know {sku}")
        except ScenarioError as error:
            raise ScenarioError(f"{error}: it answers {heard[-1]}") from error

    def answer_bytes(self) -> int:
        """The size of the answer to the canonical order. Places one."""
        self.ensure_goods([workload.goods(workload.SKU)])
        answer = self.try_ask("POST", "/v1/orders", workload.order(customer_id=workload.new_customer()), _new_key())
        if answer.status != HTTPStatus.CREATED:
            raise ScenarioError(f"an order is answered with {answer.status} {answer.text}")
        return len(answer.text.encode())

    def ensure_workers(self, workers: int) -> None:
        """Have as many gateway workers as that, each of which takes orders."""
        gateway = self.pids["worker"]
        for _ in range(abs(workers - self.workers)):
            os.kill(gateway, signal.SIGTTIN if workers > self.workers else signal.SIGTTOU)
        self.workers = workers
        self.until(
            lambda: self._has_workers(gateway, workers), f"{workers} workers that take orders", WORKERS_TIMEOUT_S
        )

    def settle(self) -> bool:
        """Wait until the system rests: events delivered, the projector through with them. False when it does not rest
        in time.
        """
        deadline = time.monotonic() + QUIET_TIMEOUT_S
        while self._busy_share() > QUIET_SHARE:
            if time.monotonic() > deadline:
                return False
        return True

    def prime_log(self, mebibytes: int) -> None:
        """Have PostgreSQL keep so much write-ahead log to use again, as one does that has run for a while: a segment
        that is new is filled with zeros by the commit that first needs it. Raises what its driver raises.
        """
        asyncio.run(_prime_log(self.postgres_url, mebibytes))

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        """Wait for something that comes by itself. Raises ScenarioError."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise ScenarioError(f"waited {timeout_s:.0f} s in vain for {what}")
            time.sleep(LOOK_AGAIN_S)

    def _knows(self, sku: str, heard: list[str]) -> bool:
        answer = self.try_ask("POST", "/v1/orders", workload.order(sku, workload.new_customer()), _new_key())
        heard.append(f"{answer.status} {answer.text}")
        return answer.status == HTTPStatus.CREATED or (
            answer.status == HTTPStatus.CONFLICT and json.loads(answer.text)["code"] == "sold_out"
        )

    def _has_workers(self, gateway: int, workers: int) -> bool:
        up = [value for name, value in self.metrics().items() if name.startswith("floodgate_ledger_up")]
        return len(usage.children_of(gateway)) == workers and up == [1.0] * workers

    def _busy_share(self) -> float:
        before, started = usage.read(self.pids), time.monotonic()
        time.sleep(QUIET_LOOK_S)
        after = usage.read(self.pids)
        return sum(after[role] - before[role] for role in before) / (time.monotonic() - started)


@contextmanager
def open_system(folder: Path, workers: int) -> Iterator[System]:
    """Start a system on this folder, and leave nothing of it. Raises ScenarioError."""
    data = DataFolder(folder)
    try:
        with uninterrupted():
            options = ("--detach", "--fresh", "--port", "0", "--no-demo", f"--workers={workers}")
            floodgate(data, "up", *options, environment=ENVIRONMENT)
        yield System(data, workers)
    finally:
        with uninterrupted():
            floodgate(data, "down")
            data.wipe()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Do what must be whole, and end by Ctrl-C or SIGTERM after it."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def floodgate(folder: DataFolder, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """What a command prints about the system on `folder`. Raises ScenarioError when it fails."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_TAKEN)}
    done = subprocess.run(  # noqa: S603 - our own command line
        [*COMMAND, *arguments, "--data", str(folder.path)],
        env={**(environment or {}), **kept},
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
        start_new_session=True,  # The terminal's Ctrl-C is ours alone.
    )
    if done.returncode:
        raise ScenarioError(f"`floodgate {arguments[0]}` has failed: {done.stderr.strip()}")
    return done.stdout


def parse_metrics(text: str) -> dict[str, float]:
    """Prometheus' text format: values by name with labels."""
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("floodgate_"))
    return {name: float(value) for name, value in lines}


def _new_key() -> str:
    return f"bench-{os.urandom(12).hex()}"


async def _prime_log(url: str, mebibytes: int) -> None:
    connection = await connect(url, "fg-bench")
    try:
        await connection.execute(f"alter system set min_wal_size = '{mebibytes + 2 * SEGMENT_MIB}MB'")
        await connection.execute("select pg_reload_conf()")
        for _ in range(mebibytes // SEGMENT_MIB):
            await connection.execute("select pg_logical_emit_message(false, 'bench', '')")
            await connection.execute("select pg_switch_wal()")
        await connection.execute("checkpoint")
    finally:
        await connection.close()


async def _ensure_all(url: str, token: str, goods: Sequence[Goods]) -> None:
    async with Edge(url, token) as edge:
        async for _ in at_once(goods, lambda one: ensure_goods(edge, one)):
            pass
