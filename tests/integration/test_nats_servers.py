"""The address of NATS may name several servers: one that is away does not keep a process from starting. Who gives up
while he connects leaves no connection behind.
"""

import asyncio

import pytest
from nats.aio.client import Client

from persistence.nats.client import connect, servers_of


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("nats://a:1", ["nats://a:1"]),
        ("nats://a:1,nats://b:1", ["nats://a:1", "nats://b:1"]),
        ("nats://u:p@a:1, tls://u:p@b:1", ["nats://u:p@a:1", "tls://u:p@b:1"]),
        ("nats://a:1,b:1,c:1", ["nats://a:1", "b:1", "c:1"]),
        ("nats://u:p,w@a:1", ["nats://u:p,w@a:1"]),
    ],
)
def test_servers_of_an_address_are_parted_by_commas(url: str, servers: list[str]) -> None:
    assert servers_of(url) == servers


async def test_connect_while_the_first_server_is_away_takes_the_second(nats_url: str) -> None:
    client = await connect(f"nats://127.0.0.1:1,{nats_url}", "fg-test")
    try:
        assert client.is_connected
    finally:
        await client.close()


async def test_connect_that_is_cancelled_closes_what_it_has_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    connecting, closed = asyncio.Event(), asyncio.Event()

    async def hang(*_: object, **__: object) -> None:
        connecting.set()
        await asyncio.Event().wait()

    async def close(_: Client) -> None:
        closed.set()

    monkeypatch.setattr(Client, "connect", hang)
    monkeypatch.setattr(Client, "close", close)
    task = asyncio.create_task(connect("nats://127.0.0.1:1", "fg-test"))
    await connecting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()
