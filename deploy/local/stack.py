"""The local system: which processes it has, in which order they start and stop, and how they find each other.

Servers first, all at once; then the schema; then the gateway, the steward and the projector, all at once; then a
token and the demo catalogue. A server that the settings name is somebody else's: it is used, and neither started,
stopped nor wiped. Children get everything by environment.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.local import process_table
from deploy.local.demo import Demo
from deploy.local.edge import is_ready, read_token, why_not_ready
from deploy.local.failure import StackError
from deploy.local.folder import DataFolder, new_hash_key, new_master_keys, new_password, write_private
from deploy.local.ports import pick_free, refusal
from deploy.local.process import Process
from deploy.local.servers import READY_TIMEOUT_S, NatsServer, Server, ValkeyServer
from deploy.local.servers_postgres import PostgresServer
from deploy.local.supervisor import Interrupted, Say, Supervisor
from gateway.settings import CONFIG_VARIABLE, Settings

# Every application process carries this variable with the path of its folder: so are those found that a killed
# supervisor left behind.
OWNED_VARIABLE = "LOCAL_FLOODGATE"
# The command line, without the caller's folder on the path: a folder there named `gateway` must not be imported.
COMMAND = [sys.executable, "-P", "-c", "from gateway.cli import main; main(prog_name='floodgate')"]
SUPERVISOR = "up"
GATEWAY = "serve"
BACKGROUND = ("steward", "projector")
CLIENT = "local"
MIGRATE_TIMEOUT_S = 300.0
COMMAND_TIMEOUT_S = 60.0
ORPHAN_TIMEOUT_S = 20.0
TOKEN_TIMEOUT_S = 15.0
# Together below the 60 s that `down` waits.
GATEWAY_STOP_S = 33.0  # The gateway gives its own workers 30 s.
BACKGROUND_STOP_S = 10.0
SERVERS_STOP_S = 15.0
assert GATEWAY_STOP_S + BACKGROUND_STOP_S + SERVERS_STOP_S < 60


class Stack:
    """One local system on one folder, whose lock the caller holds."""

    def __init__(
        self,
        folder: DataFolder,
        settings: Settings,
        *,
        config: Path | None,
        say: Say,
        on_ready: Callable[[dict[str, Any]], None],
        command: Sequence[str] = COMMAND,
    ) -> None:
        """`on_ready` is called once, with the record, when all is ready; `command` is Floodgate's command line."""
        self._folder = folder
        self._settings = settings
        self._config = config
        self._say = say
        self._on_ready = on_ready
        self._program = command
        self._ready = False
        self._servers: list[Server] = []
        self._environment: dict[str, str] = {}
        self._urls: dict[str, str] = {}
        self.supervisor = Supervisor(say, self._record)

    def run(self, *, fresh: bool, demo: bool) -> None:
        """Start all, and look after it until somebody asks to stop. Always stops all of it."""
        self.supervisor.handle_signals()
        try:
            self._clear(fresh=fresh)
            self._start(demo=demo)
            self.supervisor.run()
        except Interrupted:
            pass
        finally:
            self._stop()

    def _clear(self, *, fresh: bool) -> None:
        find = process_table.with_variable
        if process_table.end(
            lambda: find(OWNED_VARIABLE, str(self._folder.path)), Process.stop_signal, ORPHAN_TIMEOUT_S
        ):
            self._say("Ended what an earlier system had left running.")
        if fresh:
            for server in (
                PostgresServer(self._folder.postgres),
                ValkeyServer(self._folder.valkey),
                NatsServer(self._folder.nats),
            ):
                server.end_orphans()
            self._folder.wipe()

    def _start(self, *, demo: bool) -> None:
        http = self._choose_http()
        self._make_servers()
        self._urls["http"] = http
        self._environment = self._make_environment()
        self._start_servers()
        self._say("Bringing the schema up to date.")
        self.supervisor.run_once(self._command("migrate"), MIGRATE_TIMEOUT_S)
        self._say("Starting the gateway, the steward and the projector.")
        for name in (GATEWAY, *BACKGROUND):
            self.supervisor.add(self._command(name))
        self._ensure_token()
        self.supervisor.wait(lambda: is_ready(http), READY_TIMEOUT_S, lambda: self._complaint(http))
        if demo and not self._folder.seeded_file.exists():
            self._load_demo(http)
        self._ready = True
        self._record()
        self._on_ready(self._folder.run())

    def _choose_http(self) -> str:
        host = self._settings.http.host
        port = self._settings.http.port or pick_free(host=host)
        if reason := refusal(port, host):
            raise StackError(
                f"port {port} is {reason}: free it, or take another one:"
                f" floodgate up --port {pick_free(port + 1, host)}"
            )
        reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        return f"http://{reachable}:{port}"

    def _make_servers(self) -> None:
        """The embedded servers, on the ports of last time where those are free, and the addresses of all."""
        folder, ports = self._folder, self._folder.ports()
        named = {
            "postgres": self._settings.postgres.url,
            "redis": self._settings.redis.url,
            "nats": self._settings.nats.url,
        }
        for name, kind, directory in (
            ("postgres", PostgresServer, folder.postgres),
            ("redis", ValkeyServer, folder.valkey),
            ("nats", NatsServer, folder.nats),
        ):
            if not named[name]:
                ports[name] = pick_free(ports.get(name, 0))
                secret = folder.ensure_secret(f"{name}.password", new_password).read_text().strip()
                server: Server = kind(directory, port=ports[name], secret=secret, log_path=folder.log(kind.kind))
                self._servers.append(server)
                named[name] = server.url
        folder.write_ports(ports)
        self._urls = named

    def _make_environment(self) -> dict[str, str]:
        """What every application process is told. Secrets that the settings hold win over the folder's."""
        settings, folder = self._settings, self._folder
        told = {
            "FLOODGATE_POSTGRES__URL": self._urls["postgres"],
            "FLOODGATE_REDIS__URL": self._urls["redis"],
            "FLOODGATE_NATS__URL": self._urls["nats"],
            "FLOODGATE_HTTP__PORT": self._urls["http"].rpartition(":")[2],
            "FLOODGATE_HTTP__WORKERS": str(settings.http.workers),
            "PYTHONUNBUFFERED": "1",
            OWNED_VARIABLE: str(folder.path),
        }
        if not settings.secrets.master_keys:
            told["FLOODGATE_SECRETS__MASTER_KEYS_FILE"] = str(folder.ensure_secret("master.keys", new_master_keys))
        if not settings.secrets.hash_key:
            told["FLOODGATE_SECRETS__HASH_KEY_FILE"] = str(folder.ensure_secret("hash.key", new_hash_key))
        if not settings.journal.folder:
            told["FLOODGATE_JOURNAL__FOLDER"] = str(folder.journal)
        if self._config:
            told[CONFIG_VARIABLE] = os.path.realpath(self._config)
        return without_overridden(os.environ, told) | told

    def _start_servers(self) -> None:
        if self._servers:
            self._say(f"Starting {', '.join(server.name for server in self._servers)}.")
        for server in self._servers:
            self.supervisor.add(server)
        for server in self._servers:
            self.supervisor.wait(server.is_ready, READY_TIMEOUT_S, server.complaint)

    def _ensure_token(self) -> None:
        token_file = ["--token-file", str(self._folder.token), "--if-missing"]
        self.supervisor.run_once(
            self._command("client", "add", CLIENT, "--scope", "all", "--channel", "*", *token_file), COMMAND_TIMEOUT_S
        )

    def _load_demo(self, http: str) -> None:
        self._say("Loading the demo catalogue.")
        demo = Demo(http, read_token(self._folder.token))
        self.supervisor.wait(
            demo.accepted, TOKEN_TIMEOUT_S, lambda: f"the gateway does not accept the token in {self._folder.token}"
        )
        demo.load()
        write_private(self._folder.seeded_file, "")

    def _command(self, *arguments: str) -> Process:
        name = arguments[0]
        return Process(
            name,
            [*self._program, *arguments],
            self._folder.log(name),
            environment=self._environment,
            refuses_settings=True,
        )

    def _complaint(self, http: str) -> str:
        log_path = self._folder.log(GATEWAY)
        return f"The gateway was not ready within {READY_TIMEOUT_S:.0f} s. {why_not_ready(http)}\nIts log: {log_path}"

    def _record(self) -> None:
        pids = {SUPERVISOR: os.getpid(), **self.supervisor.pids()}
        record: dict[str, Any] = {**self._urls, "pids": pids, "started": self._ready}
        self._folder.write_run(record)

    def _stop(self) -> None:
        if not self.supervisor.pids():
            return
        self._say("Stopping.")
        self.supervisor.stop({GATEWAY}, GATEWAY_STOP_S)
        self.supervisor.stop(set(BACKGROUND), BACKGROUND_STOP_S)
        self.supervisor.stop({server.name for server in self._servers}, SERVERS_STOP_S)
        self._folder.run_file.unlink(missing_ok=True)
        self._say(f"All is stopped. The data stay in {self._folder.path}.")


def without_overridden(environ: Mapping[str, str], told: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment without the other spelling (`X_FILE` for `X`) of what we tell."""
    spellings = {f"{name}_FILE" for name in told} | {name.removesuffix("_FILE") for name in told}
    return {name: value for name, value in environ.items() if name not in spellings}
