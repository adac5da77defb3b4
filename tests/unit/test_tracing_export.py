"""The way of spans to a collector: bounded, counted, and never in the way of whoever makes them."""

import threading
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from gateway import tracing_export as room
from gateway.tracing import Reference, Span
from gateway.tracing_export import SpanExport


class Scripted(SpanExporter):
    """Keeps what it gets once it is let, and says what it is told to."""

    def __init__(self) -> None:
        self.result = SpanExportResult.SUCCESS
        self.batches: list[list[ReadableSpan]] = []
        self.let = threading.Event()
        self.let.set()
        self.is_shut = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        assert self.let.wait(10)
        self.batches.append(list(spans))
        return self.result

    def shutdown(self) -> None:
        self.is_shut = True


def span(number: int = 1) -> Span:
    links = (Reference(7, 8),)
    return Span("commit", "CLIENT", Reference(5, number), 3, 1.5, 2.5, {"rows": number}, links, failed=True)


@pytest.fixture
def exporter() -> Scripted:
    return Scripted()


def test_export_sends_what_waits_before_it_closes(exporter: Scripted) -> None:
    export = SpanExport("", {"service.name": "floodgate"}, exporter)
    for number in range(1, 4):
        export.put(span(number))
    export.close()
    sent = [one for batch in exporter.batches for one in batch]
    assert [one.context.span_id for one in sent] == [1, 2, 3]
    assert (export.exported, export.dropped, exporter.is_shut) == (3, 0, True)


def test_export_gives_all_that_a_span_says(exporter: Scripted) -> None:
    export = SpanExport("", {"service.name": "floodgate"}, exporter)
    export.put(span())
    export.close()
    ((sent,),) = exporter.batches
    assert sent.parent is not None
    assert (sent.name, sent.kind.name, sent.context.trace_id, sent.parent.span_id) == ("commit", "CLIENT", 5, 3)
    assert (sent.start_time, sent.end_time) == (1_500_000_000, 2_500_000_000)
    assert (dict(sent.attributes or {}), sent.status.is_ok) == ({"rows": 1}, False)
    assert [(link.context.trace_id, link.context.span_id) for link in sent.links] == [(7, 8)]
    assert sent.resource.attributes["service.name"] == "floodgate"


def test_export_in_pieces_that_a_collector_takes(exporter: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BATCH_SPANS", 2)
    exporter.let.clear()
    export = SpanExport("", {}, exporter)
    for number in range(1, 6):
        export.put(span(number))
    exporter.let.set()
    export.close()
    assert max(map(len, exporter.batches)) == 2
    assert export.exported == 5


def test_export_to_a_collector_that_refuses_counts_what_is_lost(exporter: Scripted) -> None:
    exporter.result = SpanExportResult.FAILURE
    export = SpanExport("", {}, exporter)
    export.put(span())
    export.close()
    assert (export.exported, export.dropped) == (0, 1)


def test_export_to_a_collector_that_hangs_is_bounded_and_never_waits(
    exporter: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "SPANS_MAX", 10)
    monkeypatch.setattr(room, "BATCH_SPANS", 4)
    exporter.let.clear()
    export = SpanExport("", {}, exporter)
    for number in range(1, 101):
        export.put(span(number))
    assert 100 - 10 - 4 <= export.dropped <= 100 - 10
    exporter.let.set()
    export.close()
    assert export.exported + export.dropped == 100
