"""The way of spans to a collector: OTLP over HTTP, by a thread of its own, out of a bounded queue. Loaded only when
`tracing.endpoint` is set.

It promises that `put` never waits. A collector that is away, or slower than the spans come, costs dropped spans, which
are counted, and nothing else.
"""

import threading
from collections import deque

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from gateway.tracing import Reference, Span

SPANS_MAX = 16_384  # that wait
BATCH_SPANS = 512  # of one request to the collector
EXPORT_EVERY_S = 1.0
REQUEST_S_MAX = 5.0
CLOSE_S_MAX = 2.0
NANOSECONDS = 1_000_000_000

SCOPE = InstrumentationScope("floodgate")
FLAGS = TraceFlags(TraceFlags.SAMPLED)
OK, FAILED = Status(StatusCode.UNSET), Status(StatusCode.ERROR)

log = structlog.get_logger("tracing")


class SpanExport:
    """A queue and its thread. `put` is called by one thread, the loop's."""

    def __init__(self, endpoint: str, resource: dict[str, str], exporter: SpanExporter | None = None) -> None:
        """`exporter` stands for the one to the endpoint."""
        self._exporter = exporter or OTLPSpanExporter(endpoint, timeout=REQUEST_S_MAX)
        self._resource = Resource.create(dict(resource))
        self._waiting: deque[Span] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._lost = 0
        self._refused = 0
        self.exported = 0
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        return self._lost + self._refused

    def put(self, span: Span) -> None:
        """Have a span sent within about a second."""
        if len(self._waiting) >= SPANS_MAX:
            self._lost += 1
            return
        self._waiting.append(span)
        if len(self._waiting) == BATCH_SPANS:
            self._wake.set()

    def close(self) -> None:
        """Send what waits, within CLOSE_S_MAX, and end the thread. Blocks."""
        self._closing = True
        self._wake.set()
        self._thread.join(CLOSE_S_MAX)
        self._exporter.shutdown()  # It ends what is still being tried.

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(EXPORT_EVERY_S)
            self._wake.clear()
            while self._waiting:
                self._send([self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_SPANS))])

    def _send(self, spans: list[Span]) -> None:
        result = self._exporter.export([self._readable(span) for span in spans])
        if result is SpanExportResult.SUCCESS:
            self.exported += len(spans)
        else:
            self._refused += len(spans)
            log.warning("spans_dropped", spans=len(spans))

    def _readable(self, span: Span) -> ReadableSpan:
        return ReadableSpan(
            span.name,
            context=_context(span.reference),
            parent=_context(Reference(span.reference.trace_id, span.parent_id)) if span.parent_id else None,
            resource=self._resource,
            attributes=span.attributes,
            links=[Link(_context(link)) for link in span.links],
            kind=SpanKind[span.kind],
            status=FAILED if span.failed else OK,
            start_time=int(span.start_s * NANOSECONDS),
            end_time=int(span.end_s * NANOSECONDS),
            instrumentation_scope=SCOPE,
        )


def _context(reference: Reference) -> SpanContext:
    return SpanContext(reference.trace_id, reference.span_id, is_remote=False, trace_flags=FLAGS)
