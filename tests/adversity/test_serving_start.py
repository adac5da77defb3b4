"""A worker whose start fails in a way that nobody foresaw: it ends, and never serves without what was to be started, as
a server does that takes the start for an option of the application.
"""

import asyncio
from typing import Any, cast

import pytest

from gateway import serving
from gateway.app import Gateway
from gateway.edge.direct import DIRECT
from gateway.settings import Http


class Unstartable:
    """A gateway that fails at its start."""

    async def start(self) -> None:
        raise RuntimeError("unforeseen")

    async def stop(self) -> None:
        raise AssertionError("there is nothing to stop")


async def test_worker_whose_start_fails_ends_and_serves_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(serving, "open_server", lambda *given: opened.append(given))
    with pytest.raises(RuntimeError, match="unforeseen"):
        await serving._live(cast("Gateway", Unstartable()), Http(), DIRECT, asyncio.Event())
    assert opened == []
