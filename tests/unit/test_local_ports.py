"""Ports: which are free, and who holds one that is not."""

import os
import random
import socket
from collections.abc import Iterator

import pytest

from deploy.local.ports import FIRST, LAST, is_free, pick_free, refusal


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def test_refusal_of_a_taken_port_names_its_holder(taken_port: int) -> None:
    assert f"pid {os.getpid()}" in refusal(taken_port)


def test_refusal_of_a_foreign_address_is_not_called_in_use() -> None:
    assert "not to be had" in refusal(1, "192.0.2.1")


def test_pick_free_taken_preference_takes_another(taken_port: int) -> None:
    port = pick_free(taken_port)
    assert FIRST <= port <= LAST
    assert is_free(port)


def test_pick_free_free_preference_is_kept() -> None:
    port = pick_free()
    assert pick_free(port) == port


def test_pick_free_never_gives_the_same_port_twice_although_nobody_listens_yet() -> None:
    ports = []
    for _ in range(100):
        random.seed(7)
        ports.append(pick_free())
    assert len(set(ports)) == 100
