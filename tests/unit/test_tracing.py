"""Traces: who is sampled, what spans an order makes, and that nobody pays for tracing that is off."""

import base64
import subprocess
import sys

import pytest

from gateway import api
from gateway.app import Gateway
from gateway.clock import Clock
from gateway.domain.outcomes import Refusal
from gateway.edge.hot import Edge, OrderRoute
from gateway.settings import SettingsError
from gateway.tracing import LINKS_MAX, Span, Trace, Tracer
from tests.api import TOKEN, Placing, call, services
from tests.unit.fakes import SKU, Road, accepted, settings

TRACE_ID = 0x4BF92F3577B34DA6A3CE929D0E0E4736
SAMPLED = f"00-{TRACE_ID:032x}-00f067aa0ba902b7-01"
NOT_SAMPLED = f"00-{TRACE_ID:032x}-00f067aa0ba902b7-00"
ENDPOINT = {"endpoint": "http://127.0.0.1:9/v1/traces"}
# redis-py loads parts of OpenTelemetry by itself where it is installed; what makes and sends spans is not among them.
LOADED = """
import sys
from gateway.app import Gateway
from gateway.clock import Clock
from gateway.settings import load
from gateway.tracing import open_tracer
assert open_tracer(load(environ={}), Clock(), "one") is None
ours = ("opentelemetry.exporter", "opentelemetry.sdk.trace", "google.protobuf", "gateway.tracing_export")
print([name for name in sys.modules if name.startswith(ours)])
"""


class Kept:
    """Keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.exported = self.dropped = 0

    def put(self, span: Span) -> None:
        self.spans.append(span)

    def close(self) -> None:
        pass

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


def tracer(ratio: float = 0.0) -> tuple[Tracer, Kept]:
    kept = Kept()
    return Tracer(ratio, Clock(), kept), kept


def begun(made: Tracer, traceparent: str | None = SAMPLED) -> Trace:
    trace = made.begin(traceparent)
    assert trace is not None
    return trace


def test_trace_that_the_caller_samples_goes_on() -> None:
    trace = begun(tracer(ratio=0.0)[0])
    assert (trace.reference.trace_id, trace.parent_id) == (TRACE_ID, 0x00F067AA0BA902B7)


def test_trace_that_the_caller_does_not_sample_is_not_made() -> None:
    assert tracer(ratio=1.0)[0].begin(NOT_SAMPLED) is None


def test_trace_flags_other_than_the_sampled_one_change_nothing() -> None:
    assert tracer(ratio=0.0)[0].begin(SAMPLED[:-2] + "03") is not None
    assert tracer(ratio=1.0)[0].begin(SAMPLED[:-2] + "02") is None


@pytest.mark.parametrize(("ratio", "least", "most"), [(0.0, 0, 0), (0.25, 800, 1200), (1.0, 4000, 4000)])
def test_trace_of_a_caller_who_says_nothing_is_made_for_a_share(ratio: float, least: int, most: int) -> None:
    made, _ = tracer(ratio)
    assert least <= sum(made.begin(None) is not None for _ in range(4000)) <= most


def test_trace_that_begins_here_has_ids_of_its_own() -> None:
    made, _ = tracer(ratio=1.0)
    traces = [begun(made, None) for _ in range(100)]
    assert len({trace.reference for trace in traces}) == len({trace.reference.trace_id for trace in traces}) == 100
    assert all(trace.parent_id == 0 for trace in traces)


def test_trace_names_the_span_of_the_request_for_those_behind_it() -> None:
    trace = begun(tracer()[0])
    assert trace.traceparent == f"00-{TRACE_ID:032x}-{trace.reference.span_id:016x}-01"


def test_tracer_makes_the_spans_of_the_request_and_of_its_admission() -> None:
    made, kept = tracer()
    trace = begun(made)
    trace.placed_s, trace.admitted_s = trace.started_s + 1, trace.started_s + 2
    made.answered(trace, {"http.route": "/v1/orders"}, failed=True)
    request, admission = kept.spans
    assert (request.name, request.kind, request.reference) == ("POST /v1/orders", "SERVER", trace.reference)
    assert (request.parent_id, request.failed) == (trace.parent_id, True)
    assert (admission.parent_id, admission.reference.trace_id) == (trace.reference.span_id, TRACE_ID)
    assert (admission.start_s, admission.end_s) == (trace.placed_s, trace.admitted_s)


def test_tracer_for_a_request_that_never_came_to_admission_makes_no_span_of_it() -> None:
    made, kept = tracer()
    made.answered(begun(made), {}, failed=False)
    assert [span.name for span in kept.spans] == ["POST /v1/orders"]


def test_tracer_for_work_without_sampled_orders_makes_no_span() -> None:
    made, kept = tracer()
    made.together("commit", "CLIENT", [], 0.5, {})
    assert kept.spans == []


def test_tracer_links_the_work_on_many_orders_to_them_up_to_a_bound() -> None:
    made, kept = tracer(ratio=1.0)
    traces = [begun(made, None) for _ in range(2 * LINKS_MAX)]
    made.together("commit", "CLIENT", traces, 0.5, {})
    (span,) = kept.spans
    assert (span.parent_id, span.reference.trace_id) == (traces[0].reference.span_id, traces[0].reference.trace_id)
    assert span.links == tuple(trace.reference for trace in traces[1 : LINKS_MAX + 1])
    assert span.end_s - span.start_s == pytest.approx(0.5, abs=1e-3)


async def test_tracer_commit_and_publication_of_a_sampled_order_are_in_its_trace() -> None:
    made, kept = tracer()
    road = Road({SKU: 0}, settings(), made)
    road.hold(10)
    road.start()
    trace = begun(made)
    accepted(await road.place(trace=trace))
    accepted(await road.place("k-2"))
    road.publisher.close()
    await road.publisher.run()
    await road.close()
    assert trace.placed_s <= trace.admitted_s
    assert [(span.name, span.reference.trace_id, span.parent_id) for span in kept.spans] == [
        ("commit", TRACE_ID, trace.reference.span_id),
        ("publish", TRACE_ID, trace.reference.span_id),
    ]


async def test_tracer_of_events_that_are_left_to_the_relay_keeps_nothing() -> None:
    made, kept = tracer()
    road = Road({SKU: 0}, settings(), made)
    road.hold(10)
    road.start()
    road.stream.away = True
    accepted(await road.place(trace=begun(made)))
    road.publisher.close()
    await road.publisher.run()
    await road.close()
    assert kept.named("publish") == []
    assert road.publisher._traces == {}


@pytest.mark.parametrize(("token", "spans"), [(TOKEN, 1), ("fg_unknown", 0)])
async def test_tracer_makes_spans_of_clients_alone_whatever_a_caller_asks_for(token: str, spans: int) -> None:
    made, kept = tracer()
    placing = Placing()
    placing.outcome = Refusal("sold_out")
    parts = services(admission=placing)
    route = OrderRoute(
        parts.settings.http,
        parts.access,
        parts.clock,
        parts.admission,
        parts.counters,
        parts.rates,
        parts.route.log,
        made,
    )
    headers = {"Idempotency-Key": "k", "traceparent": SAMPLED}
    await call(Edge(route, api.create(parts)), "POST", "/v1/orders", b"{}", headers, token)
    assert len(kept.spans) == spans


def test_tracing_that_is_off_loads_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_tracing_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gateway.tracing_export", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    secret = base64.b64encode(bytes(32)).decode()
    with pytest.raises(SettingsError, match=r"pip install 'floodgate\[tracing\]'"):
        Gateway(settings(tracing=ENDPOINT, secrets={"master_keys": f"1:{secret}", "hash_key": secret}))
