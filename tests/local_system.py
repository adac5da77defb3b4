"""A whole local system for the tests, driven by `floodgate up`, `down` and `status` as a person would."""

import json
import os
import signal
import subprocess
import uuid
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

from deploy.local import process_table
from deploy.local.edge import request
from deploy.local.folder import DataFolder
from deploy.local.stack import COMMAND, OWNED_VARIABLE

TIMEOUT_S = 100.0


class Local:
    """A local system under a folder that only its owner can enter."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        self.folder = DataFolder(folder / "data")
        self.environment = environment or {}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *arguments, "--data", str(self.folder.path)]
        environment = os.environ | self.environment
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)

    def ensure_up(self) -> None:
        if self.folder.holder() is None:
            self.up()

    def up(self) -> str:
        """The page."""
        done = self.run("up", "--detach", "--port", "0")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return report

    def ask(self, method: str, path: str, body: Any = None, key: str = "") -> tuple[int, Any]:
        report = self.status()
        headers = {"Idempotency-Key": key} if key else {}
        answer = request(report["http"], method, path, token=report["token"], body=body, headers=headers)
        return answer.status, json.loads(answer.text)

    def order(self, sku: str) -> dict[str, Any]:
        body = {"channel": "app", "currency": "CNY", "items": [{"sku": sku, "quantity": 1}]}
        status, order = self.ask("POST", "/v1/orders", body, key=str(uuid.uuid4()))
        assert status == HTTPStatus.CREATED, order
        assert isinstance(order, dict)
        return order

    def processes(self) -> set[int]:
        """Everything that belongs to the system: what it records, and their groups and workers."""
        recorded = set(self.status()["pids"].values())
        groups = {entry.pid for entry in process_table.entries() if entry.group in recorded}
        return recorded | groups | set(process_table.with_variable(OWNED_VARIABLE, str(self.folder.path)))

    def kill_everything(self) -> None:
        """Kill -9 for every process of the system at once."""
        for pid in self.processes():
            with suppress(ProcessLookupError):  # The kernel ends children with their parent.
                os.kill(pid, signal.SIGKILL)
