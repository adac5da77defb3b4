"""`floodgate up`, `down` and `status`: the whole system on this machine, from a terminal.

The work is done in deploy/local; here are the options, the messages and the exit status: 0 when it did what was
asked, 1 with a reason, 2 for settings that cannot be used.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from deploy.local import page, process_table
from deploy.local.accounts import PUBLIC_NAME
from deploy.local.edge import is_ready, read_token
from deploy.local.failure import StackError
from deploy.local.folder import MARKER, UP_LOG, DataFolder, already_runs
from deploy.local.process import open_log, tail_of
from deploy.local.stack import COMMAND, Stack
from gateway.cli.examples import examples
from gateway.cli.local import config_option, data_option, load_or_exit
from gateway.settings import WORKERS_MAX

DOWN_TIMEOUT_S = 60.0
LOOK_AGAIN_S = 0.1
ADDRESSES = ("http", "postgres", "redis", "nats")


def say(text: str) -> None:
    # The terminal may be gone; the system goes on, and stops in order, all the same.
    with suppress(OSError):
        click.echo(text)


@examples(
    "floodgate up",
    "floodgate up --detach --port 8081 --workers 4",
    "floodgate up --fresh --data /srv/floodgate",
)
@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=None,
    help="Port of the HTTP edge (0: any free one).  [default: 8080]",
)
@click.option("--workers", type=click.IntRange(1, WORKERS_MAX), default=None, help="Gateway processes.  [default: 2]")
@click.option("--detach", is_flag=True, help="Return when all is ready; `floodgate down` stops it.")
@click.option("--fresh", is_flag=True, help="Delete the data of the folder and start over.")
@click.option("--no-demo", is_flag=True, help="Start without the demo catalogue.")
@data_option
@config_option
def up(
    port: int | None,
    workers: int | None,
    data: Path,
    config: Path | None,
    *,
    detach: bool,
    fresh: bool,
    no_demo: bool,
) -> None:
    """Run the whole system on this machine.

    PostgreSQL, Valkey and NATS, the gateway, the steward and the projector, all on one data folder. Servers that the
    settings name are used instead of own ones.
    """
    settings = load_or_exit(config, {"http.port": port, "http.workers": workers})
    folder = DataFolder(data)
    try:
        folder.claim()
        if detach:
            _detach(folder, _arguments(port, workers, data, config, fresh=fresh, no_demo=no_demo))
            return
        with folder.locked():
            stack = Stack(
                folder,
                settings,
                config=config,
                say=say,
                on_ready=lambda record: say(page.ready_page(folder, record, detached=False)),
            )
            stack.run(fresh=fresh, demo=not no_demo)
    except StackError as error:
        raise click.ClickException(str(error)) from error


@examples(
    "floodgate down",
    "floodgate down --data /srv/floodgate",
)
@click.command()
@data_option
def down(data: Path) -> None:
    """Stop the system that `up` started. The data stay."""
    folder = DataFolder(data)
    pid = folder.holder()
    if pid is None:
        say(f"Nothing runs on {folder.path}.")
        return
    say(f"Stopping the system on {folder.path} (pid {pid}).")
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_TIMEOUT_S
    while folder.holder() == pid or process_table.is_running(pid):  # It lets go of the folder a moment before its end.
        if time.monotonic() > deadline:
            raise click.ClickException(
                f"pid {pid} has not stopped within {DOWN_TIMEOUT_S:.0f} s:"
                f" see {folder.logs}, or end it with kill -9 {pid}"
            )
        time.sleep(LOOK_AGAIN_S)
    say("All is stopped.")


@examples(
    "floodgate status",
    "floodgate status --json | jq -r .http",
)
@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the secrets.")
@data_option
def status(data: Path, *, as_json: bool) -> None:
    """Say what runs, and where. Exits 1 when nothing runs."""
    folder = DataFolder(data)
    report = _report(folder)
    if as_json:
        say(json.dumps(report, indent=2))
    elif report["pids"]:
        say(page.status_page(report))
    else:
        say(_nothing(folder))
    if not report["pids"]:
        sys.exit(1)


def _nothing(folder: DataFolder) -> str:
    names = {entry.name for entry in folder.path.iterdir()} if folder.path.is_dir() else set()
    if names - {PUBLIC_NAME} and MARKER not in names:  # `up` takes a folder with no more than root's public one.
        return f"{folder.path} is not a data folder of Floodgate: name another one with --data."
    return f"Nothing runs on {folder.path}. `floodgate up` starts it."


def _report(folder: DataFolder) -> dict[str, Any]:
    running = folder.holder() is not None
    record = folder.run() if running else {}
    return {
        **{name: record.get(name) for name in ADDRESSES},
        "token": read_token(folder.token) or None,
        "pids": record.get("pids", {}),
        "ready": bool(record.get("started")) and is_ready(record["http"]),
        "data": str(folder.path),
    }


def _arguments(
    port: int | None, workers: int | None, data: Path, config: Path | None, *, fresh: bool, no_demo: bool
) -> list[str]:
    """The same command in the foreground."""
    valued = {"--port": port, "--workers": workers, "--data": data, "--config": config}
    flags = {"--fresh": fresh, "--no-demo": no_demo}
    named = [f"{name}={value}" for name, value in valued.items() if value is not None]
    return ["up", *named, *(name for name, given in flags.items() if given)]


def _detach(folder: DataFolder, arguments: list[str]) -> None:
    """Start the command in a session of its own, and wait until its record says that all is started."""
    # Asked before the log is touched, which is that of the running one.
    if pid := folder.holder():
        raise StackError(already_runs(folder.path, pid))
    log_path = folder.logs / UP_LOG
    with open_log(log_path) as log:
        offset = log.tell()
        child = subprocess.Popen(  # noqa: S603 - our own command, no shell
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while not (record := _started(folder, child.pid)):
            if child.poll() is not None:
                raise StackError(f"the system did not start; {log_path} says:\n{tail_of(log_path, offset, 40)}")
            time.sleep(LOOK_AGAIN_S)
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise
    say(page.ready_page(folder, record, detached=True))


def _started(folder: DataFolder, pid: int) -> dict[str, Any] | None:
    record = folder.run()
    return record if record.get("started") and record["pids"].get("up") == pid else None
