"""The ceiling over RSGI, Granian's own interface: `python -m bench.baselines.echo_rsgi PORT [WORKERS [BYTES]]`."""

from typing import Any

from granian.constants import Interfaces

from bench.baselines import echo

ARGUMENTS = echo.parse_arguments()
BODY = echo.answer_of(ARGUMENTS.answer_bytes)
HEADERS = [("content-type", "application/json"), ("content-length", str(ARGUMENTS.answer_bytes))]


async def app(_scope: Any, protocol: Any) -> None:
    """Decode one order, and answer."""
    echo.decode(await protocol())
    protocol.response_bytes(201, HEADERS, BODY)


if __name__ == "__main__":
    echo.serve("bench.baselines.echo_rsgi", app, Interfaces.RSGI, ARGUMENTS)
