"""The one folder of a local system: its layout, its lock, its secrets, and the record of what runs.

A folder is ours when it holds our marker; a foreign one that is not empty is refused, and only what we made is ever
deleted. One supervisor per folder holds the lock; whether one runs is asked of the lock, never of a recorded process
number.
"""

import base64
import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from deploy.local import process_table
from deploy.local.accounts import PUBLIC_NAME, STATE_FOLDER, remove_directory
from deploy.local.failure import StackError

MARKER = ".floodgate"
MARKER_TEXT = "The data of a local Floodgate system. `floodgate up --fresh` starts over.\n"
UP_LOG = "up.log"
KEY_BYTES = 32
PASSWORD_BYTES = 24
LOCK_ATTEMPTS = 30
LOCK_PAUSE_S = 0.01


def default_folder() -> Path:
    """FLOODGATE_DATA, else a folder in the user's data home; for root one that other accounts may enter."""
    if named := os.environ.get("FLOODGATE_DATA"):
        return Path(named)
    if os.geteuid() == 0:
        return STATE_FOLDER
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "floodgate"


def new_master_keys() -> str:
    return f"1:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}"


def new_hash_key() -> str:
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def new_password() -> str:
    return secrets.token_hex(PASSWORD_BYTES)


class DataFolder:
    """Paths are absolute; nothing is touched before `claim`."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path))
        self.postgres = self.path / "postgres"
        self.valkey = self.path / "valkey"
        self.nats = self.path / "nats"
        self.journal = self.path / "journal"
        self.secrets = self.path / "secrets"
        self.logs = self.path / "logs"
        self.token = self.path / "token"
        self.run_file = self.path / "run.json"
        self.ports_file = self.path / "ports.json"
        self.seeded_file = self.path / "seeded"
        self.lock_file = self.path / "lock"

    def is_default(self) -> bool:
        """Whether commands find this folder without being told."""
        return self.path == Path(os.path.realpath(default_folder()))

    def claim(self) -> None:
        """Make the folder, or check that it is ours."""
        marker = self.path / MARKER
        if not marker.exists():
            self._refuse_foreign()
            if not self.path.exists():
                self.path.mkdir(parents=True)
                # Root's PostgreSQL runs under another name and has to pass; what is private below is closed by itself.
                self.path.chmod(0o711 if os.geteuid() == 0 else 0o700)
            write_private(marker, MARKER_TEXT)
        for folder in (self.secrets, self.logs):
            folder.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one supervisor of this folder."""
        with os.fdopen(os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o600), "r+") as lock:
            if not _try_lock(lock.fileno(), fcntl.LOCK_EX, LOCK_ATTEMPTS):
                raise StackError(already_runs(self.path, self.holder()))
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def holder(self) -> int | None:
        """The supervisor that runs on this folder, if there is one."""
        try:
            with self.lock_file.open() as lock:
                while not _try_lock(lock.fileno(), fcntl.LOCK_SH):
                    # A number that an earlier supervisor left there stands for an instant after the lock is taken.
                    lock.seek(0)
                    pid = int(lock.read() or 0)
                    if str(self.lock_file) in process_table.open_files(pid):
                        return pid
                    time.sleep(LOCK_PAUSE_S)
        except FileNotFoundError:
            pass
        return None

    def wipe(self) -> None:
        """Delete all data and secrets; the folder stays ours. The log of the supervisor itself stays."""
        for folder in (self.postgres, self.valkey, self.nats):
            remove_directory(folder)
        shutil.rmtree(self.secrets, ignore_errors=True)
        for file in (self.token, self.run_file, self.ports_file, self.seeded_file):
            file.unlink(missing_ok=True)
        for log in self.logs.glob("*"):
            if log.name != UP_LOG:
                log.unlink()
        self.claim()

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def ensure_secret(self, name: str, make: Callable[[], str]) -> Path:
        """The file of a secret, made at the first start. A lost one is not replaced: the data need it."""
        path = self.secrets / name
        if not path.exists():
            if (self.postgres / "cluster").exists():
                raise StackError(f"{path} is gone, and the data need it: put it back, or start over with --fresh")
            write_private(path, make() + "\n")
        return path

    def ports(self) -> dict[str, int]:
        return _read_json(self.ports_file)

    def write_ports(self, ports: dict[str, int]) -> None:
        write_private(self.ports_file, json.dumps(ports))

    def run(self) -> dict[str, Any]:
        """The record of the running system; empty when there is none."""
        return _read_json(self.run_file)

    def write_run(self, record: dict[str, Any]) -> None:
        write_private(self.run_file, json.dumps(record, indent=2) + "\n")

    def _refuse_foreign(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise StackError(f"{self.path} is not a folder: name another one with --data")
        foreign = {entry.name for entry in self.path.iterdir()} - {PUBLIC_NAME} if self.path.exists() else set()
        if foreign:
            raise StackError(
                f"{self.path} is not empty and not a data folder of Floodgate: name another one with --data"
            )


def already_runs(path: Path, pid: int | None) -> str:
    """Why nobody else can start on this folder, and what to do."""
    return f"Floodgate already runs on {path} (pid {pid}): `floodgate status` shows it, `floodgate down` stops it"


def write_private(path: Path, text: str) -> None:
    """Write a file that only we can read, whole or not at all."""
    staging = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any]:
    # A file that a crash cut short is worth as much as none.
    with suppress(FileNotFoundError, ValueError):
        found = json.loads(path.read_text())
        if isinstance(found, dict):
            return found
    return {}


def _try_lock(descriptor: int, kind: int, attempts: int = 1) -> bool:
    for attempt in range(attempts):
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            # Somebody who only asks whether the lock is held holds it for an instant.
            if attempt + 1 < attempts:
                time.sleep(LOCK_PAUSE_S)
        else:
            return True
    return False
