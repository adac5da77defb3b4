"""Servers of one's own: each embedded server replaced by another one, singly, and the system works the same."""

import subprocess
from http import HTTPStatus
from pathlib import Path

import pytest

from deploy.local.servers import NatsServer, ValkeyServer
from tests.local_system import Local


def assert_works_without(system: Local, server: str) -> None:
    """Start it, see that `server` is not among what it runs, sell, and balance."""
    try:
        system.up()
        report = system.status()
        assert server not in report["pids"]
        assert len(report["pids"]) == 6
        order = system.order("FLASH-001")
        status, found = system.ask("GET", f"/v1/orders/{order['order_id']}")
        assert (status, found["total"]) == (HTTPStatus.OK, order["total"])
        audit: subprocess.CompletedProcess[str] = system.run("audit")
        assert audit.returncode == 0, audit.stdout + audit.stderr
        events = system.run("events", "--json")
        assert order["order_id"] in events.stdout, events.stderr
    finally:
        system.run("down")
        system.folder.wipe()


@pytest.mark.timeout(120)
def test_up_with_a_postgres_of_ones_own_works(tmp_path: Path, empty_postgres_url: str) -> None:
    system = Local(tmp_path, {"FLOODGATE_POSTGRES__URL": empty_postgres_url})
    assert_works_without(system, "postgres")


@pytest.mark.timeout(120)
def test_up_with_a_nats_of_ones_own_works(tmp_path: Path, nats_server: NatsServer, nats_url: str) -> None:
    system = Local(tmp_path, {"FLOODGATE_NATS__URL": nats_url})
    assert_works_without(system, "nats")


@pytest.mark.timeout(120)
def test_up_with_a_valkey_of_ones_own_works(tmp_path: Path, valkey_server: ValkeyServer) -> None:
    system = Local(tmp_path, {"FLOODGATE_REDIS__URL": valkey_server.url})
    assert_works_without(system, "valkey")
