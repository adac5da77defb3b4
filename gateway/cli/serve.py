"""`floodgate serve`: a gateway, as one supervisor with its workers. The supervisor is this process.

It holds the port without listening on it: its workers can share the port, and nobody else can have it. A port that
somebody else listens on ends the command with status 1, settings that cannot be used with 2.
"""

import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path

import click

from deploy.local.ports import refusal
from gateway.cli.examples import examples
from gateway.cli.starting import config_option, load_or_exit
from gateway.settings import CONFIG_VARIABLE, WORKERS_MAX
from gateway.slots import Slots, make_memory
from gateway.workers import SIGNALS, SLOTS, Supervisor, receive_signal, start_worker


@examples(
    "floodgate serve --config floodgate.toml",
    "floodgate serve --config floodgate.toml --port 8081 --workers 4",
)
@click.command()
@config_option
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on.")
@click.option("--workers", type=click.IntRange(1, WORKERS_MAX), help="Worker processes.")
def serve(config: Path | None, host: str | None, port: int | None, workers: int | None) -> None:
    """Run a gateway: the HTTP edge and everything behind it.

    TERM and INT stop it in order, TTIN adds a worker, TTOU takes one away, HUP replaces all, one at a time: they read
    the settings anew, except for address, port and number.
    """
    settings = load_or_exit(config, http__host=host, http__port=port, http__workers=workers)
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config.resolve())  # The workers read their settings by themselves.
    with hold_port(settings.http.host, settings.http.port) as holder:
        memory = make_memory(SLOTS)
        start = partial(start_worker, settings.http.host, holder.getsockname()[1], memory)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        sys.exit(Supervisor(settings.http.workers, start, Slots.attach(memory)).run(receive_signal))


def hold_port(host: str, port: int) -> socket.socket:
    """A socket bound to the port (0: any free one), on which those of our user that ask to share may listen."""
    holder = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    # Shared only afterwards: were it so from the start, it would be bound beside others that share theirs.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind((host, port))
    except OSError as error:
        holder.close()
        reason = refusal(port, host) or error.strerror
        raise click.ClickException(f"port {port} is {reason}: free it, or take another one with --port") from error
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return holder
