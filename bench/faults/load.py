"""The load of a row: the goods that it sells, and the buyers' process. Started and stopped by the runner; it ends with
the runner, too, whatever becomes of that.
"""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from bench.failure import ScenarioError
from bench.faults import mix
from bench.faults.buyers import PATIENCE_S, Load
from bench.faults.history import Reader
from bench.faults.site import Site
from gateway.channels.feed import Goods
from gateway.cli.edge import Edge
from gateway.cli.preparing import accepted, at_once, ensure_goods, product_path

COMMAND = (sys.executable, "-P", "-m", "bench.faults.buyers")
GRACE_S = 30.0
FIRST_S = 20.0
LOOKS = 8  # in a row: each is a connection of its own, and both workers have to know the goods


class Loading:
    """The buyers of one row, under way."""

    def __init__(self, site: Site, run: str, seed: int, rate: float, folder: Path) -> None:
        self.reader = Reader(folder / f"{run}-buyers.jsonl")
        self.beside = folder / f"{run}-clients.jsonl"
        load = Load(site.url, site.token, run, seed, rate, str(folder / f"{run}-buyers.jsonl"))
        with site.log("buyers").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # The terminal's Ctrl-C is the runner's alone.
            )
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(load) + b"\n")
        self._process.stdin.flush()
        try:
            site.until(self._has_begun, "the first order", FIRST_S)
        except BaseException:
            self.kill()
            raise

    def acknowledged_after(self, at: float) -> float | None:
        """When the first order after `at` was acknowledged; None when none was yet."""
        self.reader.look()
        return self.reader.first_acknowledged_after(at)

    def stop(self) -> None:
        """No new orders; wait until every buyer knows. Raises ScenarioError."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            status = self._process.wait(PATIENCE_S + GRACE_S)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise ScenarioError("the buyers did not come to their end") from error
        if status:
            raise ScenarioError(f"the buyers ended with {status}")
        self.reader.look()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _has_begun(self) -> bool:
        if self._process.poll() is not None:
            raise ScenarioError(f"the buyers ended with {self._process.returncode}")
        return self.acknowledged_after(0.0) is not None


def ensure_lasting_goods(site: Site) -> None:
    """What every row sells."""
    asyncio.run(_ensure(site, mix.lasting_goods(), limited=True))


def ensure_scarce_goods(site: Site, run: str) -> None:
    """What one row sells out; returns when every worker knows it."""
    asyncio.run(_ensure(site, mix.scarce_goods(run), limited=False))
    sku = mix.scarce_skus(run)[-1]
    for number in range(LOOKS):
        wanted = mix.Wanted(f"proof-first-{run}-{number}", "faults-proof", ((sku, 1),))
        site.until(lambda wanted=wanted: _is_sold(site, wanted), f"{sku} to be known")  # type: ignore[misc]


def _is_sold(site: Site, wanted: mix.Wanted) -> bool:
    return site.ask("POST", "/v1/orders", mix.document(wanted), {"Idempotency-Key": wanted.key}).status == 201


async def _ensure(site: Site, goods: list[Goods], *, limited: bool) -> None:
    async with Edge(site.url, site.token) as edge:
        async for _ in at_once(goods, lambda one: ensure_goods(edge, one)):
            pass
        if limited:
            product: dict[str, Any] = {"title": "Faults", "price": mix.PRICE, "currency": mix.CURRENCY}
            limit = {"limit": mix.LIMIT_UNITS}
            accepted(await edge.ask("PUT", product_path(mix.LIMITED), product | limit), mix.LIMITED)
            await ensure_goods(edge, Goods(mix.LIMITED, "Faults", mix.PRICE, mix.CURRENCY, mix.UNITS))
