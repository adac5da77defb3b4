"""The ceiling: a bare Granian server that decodes an order, knows nothing of it, and answers 201 with as many bytes as
the gateway. What both interfaces of it share.

It promises to be served as the gateway's workers are: the same server with the same flags, one event loop and one
process each, on a port that they share. It never keeps, checks or counts anything.
"""

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any, NamedTuple

import msgspec
from granian.constants import Interfaces

from core_ext.shapes import OrderIn
from gateway.process import end_with_parent, run
from gateway.serving import open_server, serve_until
from gateway.settings import Http

HOST = "127.0.0.1"
ANSWER_BYTES = 598  # of the gateway's answer to bench/wrk/order.lua, whose client may not read personal data

decode = msgspec.json.Decoder(OrderIn).decode


class Arguments(NamedTuple):
    port: int
    workers: int = 1
    answer_bytes: int = ANSWER_BYTES


def parse_arguments() -> Arguments:
    """`PORT [WORKERS [ANSWER_BYTES]]` of the command line. Raises ValueError."""
    return Arguments(*map(int, sys.argv[1:4]))


def answer_of(size: int) -> bytes:
    """A JSON string of so many bytes, at least 2."""
    return b'"' + b"x" * (size - 2) + b'"'


def serve(module: str, app: Any, interface: Interfaces, arguments: Arguments) -> None:
    """Serve until SIGTERM or SIGINT: one worker in this process, more in processes of their own."""
    if arguments.workers == 1:
        server = open_server(app, Http(host=HOST, port=arguments.port), interface)
        run(lambda stop: serve_until(server, stop))
        return
    each = [sys.executable, "-P", "-m", module, str(arguments.port), "1", str(arguments.answer_bytes)]
    parent = os.getpid()
    children = [
        subprocess.Popen(each, preexec_fn=lambda: end_with_parent(parent))  # noqa: S603, PLW1509 - ours; it sets a signal
        for _ in range(arguments.workers)
    ]
    run(lambda stop: _until(stop, children))


async def _until(stop: asyncio.Event, children: list[subprocess.Popen[bytes]]) -> None:
    await stop.wait()
    for child in children:
        child.send_signal(signal.SIGTERM)
    for child in children:
        child.wait()
