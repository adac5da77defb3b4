"""PostgreSQL 18 of the local stack: the cluster, its settings, and questions through psql.

Never runs as root: `accounts` says who runs it and where its files lie then. A cluster appears whole or not at all
(made aside, renamed). Durability is on unless a test turns it off for itself.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from deploy.local import process_table, programs
from deploy.local.accounts import Account, account_for, reachable_directory, reachable_program
from deploy.local.failure import StackError
from deploy.local.process import open_log, spawn, tail_of
from deploy.local.servers import HOST, ORPHAN_TIMEOUT_S, Server

MAJOR = "18"
SUPERUSER = "floodgate"
DATABASE = "floodgate"
INITDB_TIMEOUT_S = 120
QUERY_TIMEOUT_S = 60
# Nothing of the user's environment (PGDATA, PGOPTIONS, locale) may change how the server runs.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}

SETTINGS: Mapping[str, str] = {
    "listen_addresses": f"'{HOST}'",
    "unix_socket_directories": "''",
    "max_connections": "200",
    "password_encryption": "'scram-sha-256'",
    "synchronous_commit": "on",
    "shared_buffers": "'256MB'",
    "wal_buffers": "'16MB'",
    # How often a page is written whole into the log after a checkpoint decides what the keys' random pages cost.
    "max_wal_size": "'4GB'",
    # Segments that are kept are used again; a new one is filled with zeros by whoever commits into it first.
    "min_wal_size": "'1GB'",
    "checkpoint_timeout": "'15min'",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    # DETAIL and CONTEXT quote rows, and a customer's data have no place in a log.
    "log_error_verbosity": "terse",
    "log_line_prefix": "'%m [%p] %a '",
    "log_timezone": "'UTC'",
    "timezone": "'UTC'",
}
LIGHT: Mapping[str, str] = {
    "shared_buffers": "'32MB'",
    "wal_buffers": "'4MB'",
    "max_wal_size": "'256MB'",
    "min_wal_size": "'64MB'",
}


class PostgresServer(Server):
    """`light` takes little memory and disk. `durable=False` is for tests: only a failing machine loses data then."""

    kind = "postgres"
    program = "postgres"
    stop_signal = signal.SIGINT  # Fast shutdown: sessions are ended, the data are flushed.
    leftover_signal = signal.SIGQUIT  # Without its postmaster a process must leave at once and write nothing more.

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        secret: str = "",
        log_path: Path | None = None,
        light: bool = False,
        durable: bool = True,
    ) -> None:
        super().__init__(directory, port=port, secret=secret, log_path=log_path)
        self._switches = {"fsync": "on" if durable else "off", "full_page_writes": "on" if durable else "off"}
        self._settings = {**SETTINGS, **(LIGHT if light else {}), **self._switches}
        self._account: Account | None = None
        self._program = Path()
        self._home = directory

    @property
    def url(self) -> str:
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        return f"postgresql://{SUPERUSER}:{self.secret}@{HOST}:{self.port}/{database}"

    @property
    def working_directory(self) -> Path:
        return self._home / "cluster"

    @property
    def command(self) -> list[str]:
        return [
            str(self._program / "bin" / "postgres"),
            "-D",
            str(self.working_directory),
            "-c",
            f"config_file={self._home / 'server.conf'}",
        ]

    def prepare(self) -> None:
        self._account = account_for(self.directory)
        self._program = reachable_program(programs.postgres(), self._account) / programs.POSTGRES
        self._home = reachable_directory(self.directory, self._account)
        if not self.working_directory.exists():
            self._make_cluster()
        self._check_version()
        self.end_orphans()
        # Nothing runs in the cluster now, so the file is stale; its number may belong to another process by now, which
        # would stop the start.
        (self.working_directory / "postmaster.pid").unlink(missing_ok=True)
        self._write(
            "server.conf",
            "".join(f"{name} = {value}\n" for name, value in {**self._settings, "port": str(self.port)}.items()),
        )

    def end_orphans(self) -> None:
        # Only the postmaster may be asked to stop: the same signal means other things to its children.
        process_table.end(self._running_postmaster, self.stop_signal, ORPHAN_TIMEOUT_S)
        process_table.end(self._running_in_cluster, self.leftover_signal, ORPHAN_TIMEOUT_S)

    def is_ready(self) -> bool:
        """Whether it answers; makes the database when it is not there."""
        try:
            if self.query(f"SELECT count(*) FROM pg_database WHERE datname = '{DATABASE}'") == "0":  # noqa: S608 - a constant
                self.query(f"CREATE DATABASE {DATABASE}")
        except StackError:
            return False
        return True

    def query(self, sql: str, database: str = "postgres") -> str:
        """What psql prints for these statements, without headers. Raises StackError with the server's message."""
        # psql runs under the caller's name, so the wheel's own copy always does.
        psql = programs.postgres().root / programs.POSTGRES / "bin" / "psql"
        command = [
            str(psql),
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            HOST,
            "-p",
            str(self.port),
            "-U",
            SUPERUSER,
            "-d",
            database,
            "-c",
            sql,
        ]
        environment = {**ENVIRONMENT, "PGPASSWORD": self.secret, "PGCONNECT_TIMEOUT": "2"}
        try:
            done = subprocess.run(  # noqa: S603 - our own command, no shell
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=QUERY_TIMEOUT_S,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired as error:
            raise StackError(f"PostgreSQL did not answer within {QUERY_TIMEOUT_S} s") from error
        if done.returncode:
            raise StackError(done.stderr.strip())
        return done.stdout.strip()

    def _running_in_cluster(self) -> list[int]:
        return process_table.running_in(self.working_directory, self.program)

    def _running_postmaster(self) -> list[int]:
        try:
            recorded = (self.working_directory / "postmaster.pid").read_text().partition("\n")[0]
        except FileNotFoundError:
            return []
        return [pid for pid in self._running_in_cluster() if str(pid) == recorded]

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        return spawn(
            self.command,
            log=log,
            environment=ENVIRONMENT,
            death_signal=self.stop_signal,
            directory=self._home,
            account=self._account,
        )

    def _make_cluster(self) -> None:
        staging = self._home / "cluster.new"
        shutil.rmtree(staging, ignore_errors=True)
        password = self._write("password", self.secret)
        command = [
            str(self._program / "bin" / "initdb"),
            "-D",
            str(staging),
            f"--username={SUPERUSER}",
            f"--pwfile={password}",
        ]
        command += [
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--auth=scram-sha-256",
            "--data-checksums",
            "--no-instructions",
        ]
        command += ["--no-sync"] if self._settings["fsync"] == "off" else []
        log_path = self.log_path.with_name("initdb.log")
        try:
            self._run_initdb(command, log_path)
        finally:
            password.unlink()
        staging.rename(self.working_directory)

    def _run_initdb(self, command: list[str], log_path: Path) -> None:
        with open_log(log_path) as log:
            offset = log.tell()
            process = spawn(
                command,
                log=log,
                environment=ENVIRONMENT,
                death_signal=signal.SIGTERM,
                directory=self._home,
                account=self._account,
            )
            try:
                status = process.wait(INITDB_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
        if status:
            raise StackError(
                f"initdb could not make the database cluster; {log_path} says:\n{tail_of(log_path, offset)}"
            )

    def _check_version(self) -> None:
        found = (self.working_directory / "PG_VERSION").read_text().strip()
        if found != MAJOR:
            raise StackError(
                f"{self.directory} was made by PostgreSQL {found}, this is {MAJOR}:"
                " dump and load it, or start over with --fresh"
            )

    def _write(self, name: str, text: str) -> Path:
        path = self._home / name
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            if self._account:
                os.fchown(file.fileno(), self._account.uid, self._account.gid)
        return path
