"""`floodgate up` as a newcomer meets it: one command, a page, an order, and nothing lost when everything is killed."""

import itertools
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import pytest

from deploy.local import process_table
from deploy.local.edge import request
from deploy.local.page import try_it
from deploy.local.stack import COMMAND
from tests.local_system import Local

# The shell reads the printed line as when it is pasted; what curl would be given comes out, one argument a line.
PASTE = "curl() { printf '%s\\n' \"$@\"; }\n"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    made = Local(tmp_path_factory.mktemp("local"))
    yield made
    made.run("down")
    made.folder.wipe()


def test_up_page_holds_an_order_that_works_when_pasted(local: Local) -> None:
    local.ensure_up()
    report = local.status()
    line = try_it(local.folder, report["http"])
    pasted = subprocess.run(["sh", "-c", PASTE + line], capture_output=True, text=True, check=True).stdout.splitlines()
    headers = dict(header.split(": ", 1) for name, header in itertools.pairwise(pasted) if name == "-H")
    body = json.loads(pasted[pasted.index("-d") + 1])
    answer = request(report["http"], "POST", "/v1/orders", body=body, headers=headers)
    assert answer.status == HTTPStatus.CREATED, answer.text


def test_up_again_is_refused_and_harmless(local: Local) -> None:
    local.ensure_up()
    pids = local.status()["pids"]
    done = local.run("up", "--detach")
    assert done.returncode == 1
    assert "already runs" in done.stderr
    assert local.status()["pids"] == pids


def test_status_json_names_everything(local: Local) -> None:
    local.ensure_up()
    report = local.status()
    assert report["ready"]
    assert report["token"]
    assert set(report["pids"]) == {"up", "serve", "steward", "projector", "postgres", "valkey", "nats"}
    assert report["http"].startswith("http://127.0.0.1:")
    assert report["postgres"].startswith("postgresql://")
    assert report["redis"].startswith("redis://")
    assert report["nats"].startswith("nats://")


def test_up_after_down_still_has_the_order(local: Local) -> None:
    local.ensure_up()
    order = local.order("TEA-002")
    pids = local.processes()
    down = local.run("down")
    assert down.returncode == 0, down.stderr
    assert not pids & {entry.pid for entry in process_table.entries()}
    assert "Floodgate is ready." in local.up()
    status, found = local.ask("GET", f"/v1/orders/{order['order_id']}")
    assert (status, found["order_id"]) == (HTTPStatus.OK, order["order_id"])


def test_up_after_everything_was_killed_has_the_order_and_sells(local: Local) -> None:
    local.ensure_up()
    order = local.order("CUP-001")
    local.kill_everything()
    assert "Floodgate is ready." in local.up()
    status, _ = local.ask("GET", f"/v1/orders/{order['order_id']}")
    assert status == HTTPStatus.OK
    local.order("CUP-001")
    audit = local.run("audit")
    assert audit.returncode == 0, audit.stdout + audit.stderr


def test_up_killed_gateway_comes_back(local: Local) -> None:
    local.ensure_up()
    killed = local.status()["pids"]["serve"]
    os.kill(killed, signal.SIGKILL)
    while (report := local.status())["pids"].get("serve") in {None, killed} or not report["ready"]:
        assert local.folder.holder() is not None
    local.order("POT-001")


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """It goes, also when the test fails: leaving a Popen waits for the process."""
    try:
        yield
    finally:
        process.kill()


def test_up_in_the_foreground_stops_cleanly_on_ctrl_c(tmp_path: Path) -> None:
    system = Local(tmp_path)
    command = [*COMMAND, "up", "--port", "0", "--workers", "3", "--no-demo", "--data", str(system.folder.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, ended(process):
        assert process.stdout
        assert any("Floodgate is ready." in line for line in process.stdout)
        pids = system.processes()
        assert len(process_table.members(system.status()["pids"]["serve"])) == 1 + 3
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
        process.wait()
    assert process.returncode == 0
    assert "All is stopped." in said
    assert not pids & {entry.pid for entry in process_table.entries()}
    system.folder.wipe()
