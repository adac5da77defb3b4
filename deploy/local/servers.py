"""The servers of the local stack, one class each: Valkey and NATS here, PostgreSQL in servers_postgres.py.

A server has a folder, a port and a secret; it can be used without the supervisor (`start`, `wait_ready`, `stop`,
`kill`), as the tests do. Starting ends what an earlier, killed owner of the same folder left running. It listens on
127.0.0.1 only, and asks for its secret even there: other users of the machine reach that address too.
"""

import json
import secrets
import socket
import subprocess
import time
from pathlib import Path
from typing import IO, ClassVar

import msgspec

from deploy.local import nats_config, process_table, programs
from deploy.local.accounts import remove_directory
from deploy.local.failure import StackError
from deploy.local.folder import write_private
from deploy.local.ports import pick_free
from deploy.local.process import Process, describe_status, spawn

HOST = "127.0.0.1"
READY_TIMEOUT_S = 60.0
ORPHAN_TIMEOUT_S = 15.0
PROBE_TIMEOUT_S = 2.0
LOOK_AGAIN_S = 0.02
SECRET_BYTES = 24
NATS_PAYLOAD_BYTES_MAX = 8 << 20


class Server(Process):
    """Port 0 picks a free one. `url` holds the secret."""

    kind: ClassVar[str]
    program: ClassVar[str]

    def __init__(self, directory: Path, *, port: int = 0, secret: str = "", log_path: Path | None = None) -> None:
        super().__init__(self.kind, [], log_path or directory.with_name(f"{directory.name}.log"))
        self.directory = directory
        self.port = port or pick_free()
        self.secret = secret or secrets.token_hex(SECRET_BYTES)

    @property
    def url(self) -> str:
        raise NotImplementedError

    def prepare(self) -> None:
        """Make the folder and the configuration; end what still runs in the folder."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Whether it answers a real question now."""
        raise NotImplementedError

    def start(self) -> None:
        self.prepare()
        super().start()

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            status = self.poll()
            if status is not None:
                raise StackError(
                    f"{self.name} ended before it was ready ({describe_status(status)});"
                    f" {self.log_path} says:\n{self.tail()}"
                )
            if time.monotonic() > deadline:
                raise StackError(self.complaint())
            time.sleep(LOOK_AGAIN_S)

    def complaint(self) -> str:
        return f"{self.name} was not ready in time; {self.log_path} says:\n{self.tail()}"

    def remove(self) -> None:
        """Delete the folder of the stopped server."""
        assert not self.running, f"{self.name} is running"
        remove_directory(self.directory)

    def leftovers(self) -> list[int]:
        return list({*super().leftovers(), *process_table.running_in(self.working_directory, self.program)})

    @property
    def working_directory(self) -> Path:
        return self.directory

    def end_orphans(self) -> None:
        process_table.end(
            lambda: process_table.running_in(self.working_directory, self.program), self.stop_signal, ORPHAN_TIMEOUT_S
        )

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        # The working folder is what an orphan is recognised by.
        return spawn(self.command, log=log, death_signal=self.stop_signal, directory=self.directory)

    def _ask(self, question: bytes, answer: bytes) -> bool:
        try:
            with socket.create_connection((HOST, self.port), PROBE_TIMEOUT_S) as connection:
                connection.sendall(question)
                received = b""
                while answer not in received:
                    piece = connection.recv(65536)
                    # Both protocols begin the line of an error with a minus sign.
                    if not piece or b"\n-" in b"\n" + received + piece:
                        return False
                    received += piece
                return True
        except OSError:
            return False


class ValkeyServer(Server):
    """The mirror. Nothing is saved: what it holds is rebuilt from the ledger."""

    kind = "valkey"
    program = "valkey-server"

    @property
    def url(self) -> str:
        return f"redis://:{self.secret}@{HOST}:{self.port}/0"

    @property
    def command(self) -> list[str]:
        return [str(programs.valkey_server()), str(self.directory.resolve() / "valkey.conf")]

    def prepare(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.end_orphans()
        lines = [
            f"bind {HOST}",
            f"port {self.port}",
            f"requirepass {self.secret}",
            "protected-mode yes",
            'save ""',
            "appendonly no",
            "set-proc-title no",
            f"dir {json.dumps(str(self.directory.resolve()), ensure_ascii=False)}",
        ]
        (self.directory / "valkey.conf").write_text("\n".join(lines) + "\n")

    def is_ready(self) -> bool:
        return self._ask(f"AUTH {self.secret}\r\nPING\r\n".encode(), b"+PONG")


class NatsServer(Server):
    """The event stream. Every acknowledged message is on the disk (`sync_interval: always`). Teams that may read stand
    in files of its folder, one each.
    """

    kind = "nats"
    program = "nats-server"

    @property
    def url(self) -> str:
        return self.url_of(nats_config.USER, self.secret)

    def url_of(self, user: str, password: str) -> str:
        return f"nats://{user}:{password}@{HOST}:{self.port}"

    @property
    def command(self) -> list[str]:
        return [str(programs.nats_server()), "--config", str(self.directory.resolve() / "nats.conf")]

    def prepare(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.end_orphans()
        # Until there were accounts the streams stood in the one that NATS calls $G.
        former, present = (self.directory / "jetstream" / name for name in ("$G", nats_config.ACCOUNT))
        if former.exists() and not present.exists():
            former.rename(present)
        self.configure()

    def configure(self) -> None:
        """Write the configuration, with the teams as they are now. A running server reads it on SIGHUP."""
        store = json.dumps(str(self.directory.resolve()), ensure_ascii=False)
        lines = [
            "server_name: floodgate",
            f"host: {HOST}",
            f"port: {self.port}",
            f"max_payload: {NATS_PAYLOAD_BYTES_MAX}",
            nats_config.accounts(self.secret, list(self.teams().values())),
            f"jetstream {{ store_dir: {store}, sync_interval: always, max_memory_store: 64MB, max_file_store: 64GB }}",
        ]
        write_private(self.directory / "nats.conf", "\n".join(lines) + "\n")

    def teams(self) -> dict[str, nats_config.Team]:
        """By name."""
        files = sorted(self._teams.glob("*.json"))
        return {file.stem: msgspec.json.decode(file.read_bytes(), type=nats_config.Team) for file in files}

    def put_team(self, team: nats_config.Team) -> None:
        """Keep a team; `configure` lets it in."""
        self._teams.mkdir(mode=0o700, exist_ok=True)
        write_private(self._teams / f"{team.name}.json", msgspec.json.encode(team).decode())

    @property
    def _teams(self) -> Path:
        return self.directory / "teams"

    def is_ready(self) -> bool:
        # The first line of the server is its INFO; the PONG says that the password was accepted.
        hello = json.dumps({"user": nats_config.USER, "pass": self.secret, "verbose": False, "pedantic": False})
        return self._ask(f"CONNECT {hello}\r\nPING\r\n".encode(), b"PONG\r\n")
