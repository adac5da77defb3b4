"""Traces of orders: which are sampled, and the spans that are made of them when they are done. Off, the worker has no
tracer, and nothing of OpenTelemetry is loaded.

It promises W3C trace context: a caller's trace goes on, and his flag decides; of the others a share is traced, by the
id. An order that is not sampled costs a decision and makes no span. Spans hold codes, counts and ids, never what a
buyer wrote.
"""

import importlib
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from gateway.clock import Clock
from gateway.settings import Settings, SettingsError

SAMPLED = 0x01
LINKS_MAX = 128  # of a span; the usual limit of SDKs
RATIO_BITS = 64  # of a trace id that decide, as in every SDK
SERVICE = "floodgate"
EXPORT = "gateway.tracing_export"

Attributes = Mapping[str, str | int]


class Reference(NamedTuple):
    """A span as others name it."""

    trace_id: int
    span_id: int


class Span(NamedTuple):
    """A span that is over; times in seconds since 1970. `kind` as OpenTelemetry names it."""

    name: str
    kind: str
    reference: Reference
    parent_id: int  # 0: it is the first of its trace
    start_s: float
    end_s: float
    attributes: Attributes
    links: tuple[Reference, ...] = ()
    failed: bool = False


class Sink(Protocol):
    """What takes spans; see gateway/tracing_export.py."""

    exported: int
    dropped: int

    def put(self, span: Span) -> None: ...

    def close(self) -> None: ...


class Trace(Struct, eq=False):
    """A sampled order on its way: the span of its request, and when it came to admission and went on from it."""

    reference: Reference
    parent_id: int
    started_s: float
    placed_s: float = 0.0
    admitted_s: float = 0.0

    @property
    def traceparent(self) -> str:
        """What the order's event carries: a consumer's span becomes a child of the request's."""
        return f"00-{self.reference.trace_id:032x}-{self.reference.span_id:016x}-01"


class Tracer:
    """One per worker."""

    def __init__(self, ratio: float, clock: Clock, sink: Sink) -> None:
        self._below = int(ratio * (1 << RATIO_BITS))
        self._clock = clock
        self.sink = sink

    def begin(self, traceparent: str | None) -> Trace | None:
        """The trace of a request that comes now, None if it is not sampled. `traceparent` is valid if there is one."""
        if traceparent is not None:
            _, trace_id, parent_id, flags = traceparent.split("-")
            if not int(flags, 16) & SAMPLED:
                return None
            return Trace(Reference(int(trace_id, 16), _span_id()), int(parent_id, 16), self._clock.now_s())
        fresh = int.from_bytes(os.urandom(16))
        if fresh & ((1 << RATIO_BITS) - 1) >= self._below or not fresh:
            return None
        return Trace(Reference(fresh, _span_id()), 0, self._clock.now_s())

    def answered(self, trace: Trace, attributes: Attributes, *, failed: bool) -> None:
        """The request's answer is there: its span, and that of its admission."""
        now_s = self._clock.now_s()
        own = trace.reference
        self.sink.put(
            Span("POST /v1/orders", "SERVER", own, trace.parent_id, trace.started_s, now_s, attributes, (), failed)
        )
        if trace.placed_s:
            span = Reference(own.trace_id, _span_id())
            self.sink.put(
                Span("admission", "INTERNAL", span, own.span_id, trace.placed_s, trace.admitted_s or now_s, {})
            )

    def together(self, name: str, kind: str, traces: Iterable[Trace], seconds: float, attributes: Attributes) -> None:
        """What was done for several orders at once, and has taken `seconds` until now: a span in the trace of the first
        sampled one, with links to the others. None is made when none was sampled.
        """
        references = [trace.reference for trace in traces]
        if references:
            now_s, first = self._clock.now_s(), references[0]
            span = Reference(first.trace_id, _span_id())
            links = tuple(references[1 : LINKS_MAX + 1])
            self.sink.put(Span(name, kind, span, first.span_id, now_s - seconds, now_s, attributes, links))


def open_tracer(settings: Settings, clock: Clock, instance: str) -> Tracer | None:
    """The tracer that the settings ask for; `instance` says which worker its spans are from. Raises SettingsError when
    the packages are not there.
    """
    if not settings.tracing.endpoint:
        return None
    export = _load_export()
    resource = {
        "service.name": SERVICE,
        "service.namespace": settings.installation.name,
        "service.instance.id": instance,
    }
    return Tracer(settings.tracing.ratio, clock, export.SpanExport(settings.tracing.endpoint, resource))


def ensure_installed(settings: Settings) -> None:
    """Raises SettingsError when traces are asked for and the packages for them are not there."""
    if settings.tracing.endpoint:
        _load_export()


def _load_export() -> Any:
    try:
        return importlib.import_module(EXPORT)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"tracing.endpoint is set, and {error.name} is not installed: pip install 'floodgate[tracing]'"
        ) from error


def _span_id() -> int:
    """Not 0, which means none."""
    return int.from_bytes(os.urandom(8)) or 1
