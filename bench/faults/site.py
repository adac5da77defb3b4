"""The system under fault: real servers, a gateway with its workers, a steward and a projector, each a process of its
own in a folder of its own, every link between them through a proxy.

It looks after its processes as a service manager would, but only when asked to (`ensure_running`), so that a row
decides how long something is dead. Nothing of it is left when it is closed. Processes are started from the thread that
made it.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from bench.failure import ScenarioError
from bench.faults.clocks import Clocks
from bench.faults.cluster import NODES, ClusterNode, form
from bench.faults.links import Links
from bench.faults.times import Times
from bench.system import parse_metrics
from deploy.local import process_table
from deploy.local.edge import Answer, is_ready, read_token, request
from deploy.local.failure import StackError
from deploy.local.folder import DataFolder, new_hash_key, new_master_keys
from deploy.local.ports import pick_free
from deploy.local.process import Process, spawn, stop_together
from deploy.local.servers import NatsServer, Server, ValkeyServer
from deploy.local.servers_postgres import ENVIRONMENT, PostgresServer
from deploy.local.stack import COMMAND
from gateway.settings import KEYS
from persistence.journal import peek

WORKERS = 2
CLIENT = "faults"
READY_S = 60.0
LOOK_AGAIN_S = 0.05
ONCE_S = 60.0  # a command that ends by itself
STOP_S = 33.0
JOURNAL_MODE = "journal.mode"
ALL_WORKERS = "every worker to take orders"
DRAINED = "every journal to be drained"
SMALL_DISK = "2m"
GATEWAY, STEWARD, PROJECTOR = "serve", "steward", "projector"
# Link -> server. Workers and the others have links of their own.
LINKS = {
    "worker-postgres": "postgres",
    "steward-postgres": "postgres",
    "worker-redis": "valkey",
    "steward-redis": "valkey",
    "worker-nats": "nats",
    "steward-nats": "nats",
}
SECRETS = {"master.keys": new_master_keys, "hash.key": new_hash_key}
SIDES = {GATEWAY: "worker", STEWARD: "steward", PROJECTOR: "steward"}


class _Postgres(PostgresServer):
    """With a few more variables."""

    def __init__(self, directory: Path, variables: dict[str, str], log_path: Path) -> None:
        super().__init__(directory, log_path=log_path, light=True)
        self._variables = variables

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        return spawn(
            self.command,
            log=log,
            environment={**ENVIRONMENT, **self._variables},
            death_signal=self.stop_signal,
            directory=self._home,
            account=self._account,
        )


class Site:
    """A running system. `mode` is that of its journal where this build has one: `journal`, `reject`, or `small`, where
    the journals lie on a small disk of their own; or `clock`, where wall clocks can be stepped; or `cluster`, where the
    mirror is a cluster. `mirrors` are its servers, the first of which is `valkey`.
    """

    def __init__(self, folder: Path, times: Times, mode: str = "journal") -> None:
        self.folder = DataFolder(folder)
        self.times = times
        self.mode = mode
        self.journals = self.folder.path / "journal"
        self.postgres: PostgresServer
        self.valkey: ValkeyServer
        self.mirrors: list[ValkeyServer] = []
        self.nodes: list[ClusterNode] = []  # of a cluster: the mirrors
        self.nats: NatsServer
        self.links: Links
        self.clocks = Clocks(folder / "clocks") if mode == "clock" else None
        self.url = ""
        self.token = ""
        self._servers: dict[str, Server] = {}
        self._processes: dict[str, Process] = {}

    def open(self) -> None:
        """Start all of it. Raises ScenarioError."""
        self.folder.claim()
        self.folder.path.chmod(0o711)  # Root's PostgreSQL has to pass.
        if self.mode == "small":
            mount_small_disk(self.journals)
        if self.clocks is not None:
            self.clocks.make("postgres", *SIDES)
        # Before there are data that need them.
        for name, make in SECRETS.items():
            self.folder.ensure_secret(name, make)
        try:
            self._make_servers()
            own = {node.name: node.port for node in self.nodes}  # a link each, the first one's besides those of LINKS
            targets = {link: self._servers[name].port for link, name in LINKS.items()} | own
            self.links = Links(targets, self.log("proxies"))
            self._start_servers()
            self.url = f"http://127.0.0.1:{pick_free()}"
            self._run("migrate")
            token_file = ("--token-file", str(self.folder.token), "--if-missing")
            self._run("client", "add", CLIENT, "--scope", "all", "--channel", "*", *token_file)
            self.token = read_token(self.folder.token)
            for name in (GATEWAY, STEWARD, PROJECTOR):
                self._processes[name] = self._command(name)
            self.ensure_running()
        except StackError as error:
            raise ScenarioError(str(error)) from error

    def close(self) -> None:
        """Stop all of it; the folder stays, with the logs."""
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        stop_together([*self._processes.values()], STOP_S)
        stop_together([*self._servers.values()])
        if hasattr(self, "links"):
            self.links.close()
        if self.mode == "small":
            unmount(self.journals)

    def ensure_running(self) -> None:
        """Start what does not run, and wait until the gateway takes orders. Raises ScenarioError."""
        for server in self._servers.values():
            self.ensure_server(server)
        for process in self._processes.values():
            if not process.running:
                self._end_leftovers(process)
                process.start()
        self.until(self.is_ready, "the gateway to be ready")

    def ensure_server(self, server: Server) -> None:
        if not server.running:
            server.start()
            server.wait_ready()

    def is_ready(self) -> bool:
        return is_ready(self.url)

    def has_all_workers(self) -> bool:
        """Whether every worker takes orders, each seen by the metrics of whoever answers."""
        up = [value for name, value in self.metrics().items() if name.startswith("floodgate_ledger_up")]
        return len(self.workers()) == WORKERS and up == [1.0] * WORKERS

    def has_drained(self) -> bool:
        """Whether every journal has an owner, and nothing in it that is no row."""
        return all(journal.locked and not journal.records for journal in peek(self.journals))

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float = READY_S) -> None:
        """Wait for something that comes by itself. Raises ScenarioError."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise ScenarioError(f"waited {timeout_s:.0f} s in vain for {what}")
            time.sleep(LOOK_AGAIN_S)

    def workers(self) -> list[int]:
        """The workers' processes, oldest first."""
        gateway = self.pid(GATEWAY)
        return sorted(set(process_table.members(gateway)) - {gateway}) if gateway else []

    def backends(self) -> list[int]:
        """Every process of PostgreSQL."""
        return process_table.running_in(self.postgres.working_directory, self.postgres.program)

    def pid(self, name: str) -> int:
        """Of a process or a server; 0 when it does not run."""
        process = self._processes.get(name) or self._servers[name]
        return process.pid or 0 if process.running else 0

    def process(self, name: str) -> Process:
        return self._processes[name]

    def server(self, name: str) -> Server:
        return self._servers[name]

    def log(self, name: str) -> Path:
        return self.folder.log(name)

    def query(self, sql: str) -> str:
        """What psql prints, on the ledger itself. Raises ScenarioError."""
        try:
            return self.postgres.query(sql, "floodgate")
        except StackError as error:
            raise ScenarioError(f"the ledger: {error}") from error

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        return request(self.url, method, path, token=self.token, body=body, headers=headers)

    def metrics(self) -> dict[str, float]:
        """Empty when nobody answers."""
        return parse_metrics(self.ask("GET", "/metrics").text)

    def _make_servers(self) -> None:
        folder = self.folder
        postgres_clock = self.clocks.environment("postgres") if self.clocks else {}
        self.postgres = _Postgres(folder.postgres, postgres_clock, folder.log("postgres"))
        self.mirrors = self._mirrors()
        self.valkey = self.mirrors[0]
        self.nats = NatsServer(folder.nats, log_path=folder.log("nats"))
        self._servers = {server.name: server for server in (self.postgres, *self.mirrors, self.nats)}

    def _mirrors(self) -> list[ValkeyServer]:
        folder = self.folder
        if self.mode != "cluster":
            return [ValkeyServer(folder.valkey, log_path=folder.log("valkey"))]
        for number in range(NODES):
            name = f"valkey-{number}" if number else "valkey"
            secret = self.nodes[0].secret if self.nodes else ""
            node = ClusterNode(folder.path / name, secret=secret, log_path=folder.log(name))
            node.name = name
            self.nodes.append(node)
        return [*self.nodes]

    def _start_servers(self) -> None:
        for node in self.nodes:
            node.announced = self.links.ports[node.name]
        for server in self._servers.values():
            server.start()
        for server in self._servers.values():
            server.wait_ready()
        if self.nodes:
            form(self.nodes)

    def _run(self, *arguments: str) -> None:
        process = self._command(*arguments)
        process.start()
        try:
            self.until(lambda: not process.running, f"`{arguments[0]}` to end", ONCE_S)
        finally:
            process.stop()
        if process.poll():
            raise ScenarioError(f"`{arguments[0]}` failed:\n{process.tail()}")

    def _command(self, *arguments: str) -> Process:
        name = arguments[0]
        return Process(name, [*COMMAND, *arguments], self.log(name), environment=self._environment(name))

    def _environment(self, name: str) -> dict[str, str]:
        """What a process is told; one that only prepares the system talks to the servers themselves."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("FLOODGATE_")}
        told = {
            "FLOODGATE_POSTGRES__URL": self._address(self.postgres, name),
            "FLOODGATE_REDIS__URL": self._address(self.valkey, name),
            "FLOODGATE_NATS__URL": self._address(self.nats, name),
            "FLOODGATE_HTTP__PORT": self.url.rpartition(":")[2],
            "FLOODGATE_HTTP__WORKERS": str(WORKERS),
            "FLOODGATE_STOCK__LEASE_UNITS_MAX": "64",
            "FLOODGATE_ORDERS__PAYMENT_TIMEOUT_S": "86400",
            "FLOODGATE_SECRETS__MASTER_KEYS_FILE": str(self.folder.secrets / "master.keys"),
            "FLOODGATE_SECRETS__HASH_KEY_FILE": str(self.folder.secrets / "hash.key"),
            "PYTHONUNBUFFERED": "1",
        }
        if JOURNAL_MODE in KEYS:
            told["FLOODGATE_JOURNAL__MODE"] = "reject" if self.mode == "reject" else "journal"
            told["FLOODGATE_JOURNAL__FOLDER"] = str(self.journals)
        clock = self.clocks.environment(name) if self.clocks is not None and name in SIDES else {}
        return kept | told | self.times.environment() | clock

    def _address(self, server: Server, name: str) -> str:
        side = SIDES.get(name)
        if side is None:
            return server.url
        (link,) = (link for link, kind in LINKS.items() if kind == server.kind and link.startswith(side))
        return server.url.replace(f":{server.port}", f":{self.links.ports[link]}")

    def _end_leftovers(self, process: Process) -> None:
        process_table.end(process.leftovers, signal.SIGKILL, 1.0)

    def _pids(self) -> list[int]:
        """Every process of the system, so that none is left stopped."""
        leaders = [one.pid for one in (*self._processes.values(), *self._servers.values()) if one.pid]
        return leaders + [entry.pid for entry in process_table.entries() if entry.group in leaders]


def has_journal() -> bool:
    """Whether this build has one."""
    return JOURNAL_MODE in KEYS


def mount_small_disk(folder: Path, size: str = SMALL_DISK) -> None:
    """A file system of this size on the folder. Raises ScenarioError: it takes root."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    done = subprocess.run(  # noqa: S603 - the system's own command
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)],  # noqa: S607 - the system's
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    if done.returncode:
        raise ScenarioError(f"a small file system cannot be mounted: {done.stderr.strip()}")


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, timeout=10, check=False)  # noqa: S603, S607 - the system's
