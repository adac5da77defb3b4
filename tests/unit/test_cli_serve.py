"""The port of `serve`: held against everybody else, shared with the workers."""

import contextlib
import socket
from collections.abc import Iterator

import click
import pytest

from gateway.cli.serve import hold_port

HOST = "127.0.0.1"


@pytest.fixture
def held() -> Iterator[socket.socket]:
    with hold_port(HOST, 0) as holder:
        yield holder


def listen(port: int) -> socket.socket:
    """As a worker does: asks to share."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((HOST, port))
    listener.listen()
    return listener


def accepted(listener: socket.socket) -> int:
    """How many connections wait for it."""
    listener.setblocking(False)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            count += 1
    return count


def test_hold_port_lets_several_workers_listen_and_gets_no_connection(held: socket.socket) -> None:
    port = held.getsockname()[1]
    with listen(port) as one, listen(port) as other:
        for _ in range(20):
            socket.create_connection((HOST, port), timeout=5).close()
        assert accepted(one) + accepted(other) == 20


def test_hold_port_twice_is_refused(held: socket.socket) -> None:
    with pytest.raises(click.ClickException, match="in use"):
        hold_port(HOST, held.getsockname()[1])


def test_hold_port_that_somebody_shares_is_refused() -> None:
    with listen(0) as other, pytest.raises(click.ClickException, match=r"in use \(pid"):
        hold_port(HOST, other.getsockname()[1])


def test_hold_port_of_a_foreign_address_says_so() -> None:
    with pytest.raises(click.ClickException, match="not to be had"):
        hold_port("192.0.2.1", 8080)
