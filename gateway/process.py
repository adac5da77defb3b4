"""What every process of ours does at its start: structured logs to standard error, an end that comes with SIGTERM or
SIGINT, and none that outlives its parent.

A log line carries codes, counts and ids, never what a buyer wrote. Writing one never waits (gateway/log_lines.py).
"""

import asyncio
import ctypes
import gc
import json
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
import uvloop

from gateway.log_lines import STANDARD_ERROR
from gateway.settings import Log

PR_SET_PDEATHSIG = 1
# Objects more than at the last collection; hundreds of orders under way, or a batch of events, have fewer.
COLLECT_OBJECTS_MIN = 50_000
# Loaded before any fork: between fork and exec nothing may be imported.
LIBC = ctypes.CDLL(None, use_errno=True)


def configure_logging(settings: Log) -> None:
    """One JSON object per line on standard error, ours and the libraries' alike."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_encode)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(STANDARD_ERROR),  # type: ignore[arg-type]  # It writes and flushes.
        cache_logger_on_first_use=True,
    )
    handler = _Handler()
    render = structlog.processors.JSONRenderer(serializer=lambda event, **_: _encode(event).decode())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render], foreign_pre_chain=shared
        )
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)


class _Handler(logging.Handler):
    """The libraries' lines, on the way that ours take. A library that has got its words wrong is not stopped by it,
    as with logging's own handlers: its line says where they stand.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode()
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            place = f"{record.pathname}:{record.lineno}"
            line = _encode(
                {"event": "log_line_failed", "level": "warning", "place": place, "error": type(error).__name__}
            )
        STANDARD_ERROR.write(line + b"\n")


def _encode(event: dict[str, Any], **_: Any) -> bytes:
    try:
        return msgspec.json.encode(event, enc_hook=repr)
    except UnicodeEncodeError:  # The name of a file that is not UTF-8, say, which Python shows with surrogates.
        return json.dumps(event, default=repr).encode()


def end_with_parent(parent: int) -> None:
    """Get SIGTERM when the parent, whose number is given, dies, however it dies: a worker without its supervisor would
    serve on, unseen. The kernel means the parent's thread. May be called between fork and exec.
    """
    LIBC.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:  # It died before the setting took effect.
        os._exit(1)


def spare_the_collector() -> None:
    """Let the garbage collector leave what is there at the start alone, and look for rubbish seldom: orders and events
    make none, but those under way keep enough objects to call it all the time, for 9 % of a worker's time
    (2026-11-23).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_OBJECTS_MIN, *gc.get_threshold()[1:])


def run(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run `main` on uvloop; the event it gets is set by SIGTERM or SIGINT, and it then comes to its end by itself."""

    async def supervised() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await main(stop)

    uvloop.run(supervised())
