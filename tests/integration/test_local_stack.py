"""The supervisor with real processes: the order of starting, restarts, giving up, stopping, and what a kill leaves.

The servers and the application are pretended by one small program, so that only the stack itself is under test.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from deploy.local import process_table
from deploy.local.edge import is_ready, request
from deploy.local.folder import DataFolder

PATIENCE_S = 30.0
EXTERNAL = {"POSTGRES": "postgresql://external:1", "REDIS": "redis://external:1", "NATS": "nats://external:1"}

# What each command of the application does here; every call is noted.
APPLICATION = """
import http.server, json, os, signal, sys
command = sys.argv[1]
with open(os.environ["NOTES"], "a") as notes:
    notes.write(command + "\\n")
if command == os.environ.get("REFUSES"):
    print("unknown setting stok.shards; the nearest is stock.shards")
    sys.exit(2)
if command == os.environ.get("FAILS"):
    print("the schema is newer than this program")
    sys.exit(1)
if command == "client":
    with open(sys.argv[sys.argv.index("--token-file") + 1], "w") as token:
        token.write("fg_token")
elif command == "serve":
    class Handler(http.server.BaseHTTPRequestHandler):
        known = set()
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.command == "PUT":
                self.known.add(self.path)
            fixed = self.path.startswith("/readyz") or "limit" in self.path
            self.send_response(200 if fixed or self.path in self.known else 404)
            self.end_headers()
            self.wfile.write(json.dumps(sorted(self.known)).encode())
        do_GET = do_PUT = answer
        def log_message(self, *args):
            pass
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    http.server.HTTPServer(("127.0.0.1", int(os.environ["FLOODGATE_HTTP__PORT"])), Handler).serve_forever()
elif command in ("steward", "projector"):
    signal.pause()
"""

UP = """
import sys
from pathlib import Path
from deploy.local.folder import DataFolder
from deploy.local.failure import StackError
from deploy.local.stack import Stack
from gateway.settings import load
folder = DataFolder(Path(sys.argv[1]))
folder.claim()
try:
    with folder.locked():
        stack = Stack(
            folder,
            load(),
            config=None,
            say=lambda text: print(text, flush=True),
            on_ready=lambda record: print("ready"),
            command=[sys.executable, sys.argv[2]],
        )
        stack.run(fresh="--fresh" in sys.argv, demo=True)
except StackError as error:
    print(error)
    sys.exit(1)
"""


class System:
    """A system with pretended application processes; its servers are named as external, so none is started."""

    def __init__(self, folder: Path) -> None:
        self.folder = DataFolder(folder / "data")
        self.notes = folder / "notes"
        self.output = folder / "output"
        self.application = folder / "application.py"
        self.application.write_text(APPLICATION)
        external = {f"FLOODGATE_{name}__URL": url for name, url in EXTERNAL.items()}
        self.environment = {**os.environ, **external, "FLOODGATE_HTTP__PORT": "0", "NOTES": str(self.notes)}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", UP, str(self.folder.path), str(self.application), *arguments]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=self.environment | environment)
        return self.process

    def wait_ready(self) -> dict[str, Any]:
        eventually(lambda: bool(self.folder.run().get("started")) and is_ready(self.folder.run()["http"]))
        return self.folder.run()

    def wait_ended(self) -> int:
        assert self.process
        return self.process.wait(PATIENCE_S)

    def stop(self) -> None:
        assert self.process
        self.process.terminate()
        assert self.wait_ended() == 0
        self.folder.wipe()

    def said(self) -> str:
        return self.output.read_text()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    made = System(tmp_path)
    yield made
    if made.process and made.process.poll() is None:
        made.process.kill()
        made.process.wait()


def test_up_starts_the_schema_before_the_application(system: System) -> None:
    system.start()
    record = system.wait_ready()
    notes = system.notes.read_text().split()
    assert notes[0] == "migrate"
    assert set(notes[1:]) == {"serve", "steward", "projector", "client"}
    assert set(record["pids"]) == {"up", "serve", "steward", "projector"}


def test_up_loads_the_demo_catalogue_once(system: System) -> None:
    system.start()
    http = system.wait_ready()["http"]
    assert "/v1/stock/FLASH-001" in json.loads(request(http, "GET", "/readyz").text)
    system.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
    assert system.wait_ended() == 0
    system.start()
    assert json.loads(request(system.wait_ready()["http"], "GET", "/readyz").text) == []


@pytest.mark.parametrize(("name", "process"), [("POSTGRES", "postgres"), ("REDIS", "valkey"), ("NATS", "nats")])
def test_up_starts_only_the_servers_that_no_setting_names(system: System, name: str, process: str) -> None:
    system.start(**{f"FLOODGATE_{name}__URL": ""})
    record = system.wait_ready()
    assert set(record["pids"]) == {"up", "serve", "steward", "projector", process}
    urls = {record["postgres"], record["redis"], record["nats"]}
    assert len(urls & set(EXTERNAL.values())) == 2
    system.stop()


def test_up_killed_with_its_servers_starts_again_on_the_same_data(system: System) -> None:
    system.start(FLOODGATE_POSTGRES__URL="")
    before = system.wait_ready()
    for pid in before["pids"].values():
        os.kill(pid, signal.SIGKILL)
    system.wait_ended()
    system.start(FLOODGATE_POSTGRES__URL="")
    eventually(lambda: system.folder.run().get("pids", {}).get("up") not in {None, before["pids"]["up"]})
    assert system.wait_ready()["postgres"] == before["postgres"]
    system.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_up_asked_to_stop_leaves_nothing_running(system: System, number: signal.Signals) -> None:
    process = system.start()
    pids = set(system.wait_ready()["pids"].values())
    process.send_signal(number)
    assert system.wait_ended() == 0
    assert not pids & {entry.pid for entry in process_table.entries()}
    assert not system.folder.run_file.exists()
    assert system.folder.holder() is None


def test_up_killed_leaves_nothing_running_and_starts_again(system: System) -> None:
    process = system.start()
    pids = set(system.wait_ready()["pids"].values())
    process.kill()
    process.wait()
    eventually(lambda: not pids & {entry.pid for entry in process_table.entries()})
    system.start()
    assert not set(system.wait_ready()["pids"].values()) & pids


def test_up_ends_what_a_killed_system_left(system: System) -> None:
    system.folder.claim()
    orphan = subprocess.Popen(["sleep", "300"], env={**os.environ, "LOCAL_FLOODGATE": str(system.folder.path)})
    system.start()
    assert orphan.wait(PATIENCE_S) == -signal.SIGTERM
    system.wait_ready()
    assert "left running" in system.said()


@pytest.mark.parametrize("name", ["serve", "steward"])
def test_up_killed_child_is_started_again(system: System, name: str) -> None:
    system.start()
    before = system.wait_ready()["pids"][name]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: system.folder.run().get("pids", {}).get(name) not in {None, before})
    system.wait_ready()
    assert f"{name} died (signal 9, SIGKILL)" in system.said()


def test_up_failing_migration_shows_its_reason(system: System) -> None:
    system.start(FAILS="migrate")
    assert system.wait_ended() == 1
    assert "the schema is newer than this program" in system.said()
    assert "serve" not in system.notes.read_text()


def test_up_refused_settings_end_it_at_once(system: System) -> None:
    system.start(REFUSES="projector")
    assert system.wait_ended() == 1
    assert "projector cannot use its settings" in system.said()
    assert "the nearest is stock.shards" in system.said()
    assert system.notes.read_text().split().count("projector") == 1


def test_up_child_that_keeps_dying_ends_it(system: System) -> None:
    system.start(FAILS="steward")
    assert system.wait_ended() == 1
    assert "steward died 5 times" in system.said()


def test_up_twice_on_one_folder_is_refused(system: System) -> None:
    first = system.start()
    system.wait_ready()
    second = system.start()
    assert second.wait(PATIENCE_S) == 1
    assert f"already runs on {system.folder.path} (pid {first.pid})" in system.said()
    first.terminate()
    assert first.wait(PATIENCE_S) == 0


def test_up_port_in_use_names_the_holder_and_the_remedy(system: System, tmp_path: Path) -> None:
    first = system.start()
    record = system.wait_ready()
    port = record["http"].rpartition(":")[2]
    (tmp_path / "rival").mkdir()
    rival = System(tmp_path / "rival")
    rival.start(FLOODGATE_HTTP__PORT=port)
    assert rival.wait_ended() == 1
    assert f"port {port} is in use (pid {record['pids']['serve']}, " in rival.said()
    assert "floodgate up --port" in rival.said()
    first.terminate()
    assert first.wait(PATIENCE_S) == 0


def test_up_fresh_forgets_token_and_demo_catalogue(system: System) -> None:
    system.start()
    system.wait_ready()
    system.process.terminate()  # type: ignore[union-attr]
    assert system.wait_ended() == 0
    system.folder.token.write_text("old")
    system.start("--fresh")
    http = system.wait_ready()["http"]
    assert system.folder.token.read_text() == "fg_token"
    assert request(http, "GET", "/v1/stock/FLASH-001").status == HTTPStatus.OK
