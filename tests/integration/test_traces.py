"""Traces as a collector sees them: one from the request to the event, whose consumer goes on with it; and a collector
that is away is nobody's trouble but the spans'.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.edge.answers import Answer
from gateway.edge.requests import Headers
from tests.collector import Collector, running_collector
from tests.worker_world import Shop, World, eventually, open_world, order, order_id_of

CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CANARY = "canary-in-a-note"


@pytest.fixture
async def world(postgres_url: str, nats_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url, nats_url) as world:
        await world.product(units=100)
        yield world
        await world.assert_clean()


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with running_collector() as collector:
        yield collector


async def place(shop: Shop, key: str, traceparent: str | None = None) -> Answer:
    body = order(note=CANARY)
    headers = Headers(f"Bearer {shop.token}".encode(), b"application/json", key.encode(), traceparent, len(body), 1)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return await shop.services.route.respond(headers, receive)


async def event_of(world: World, order_id: str) -> dict[str, Any]:
    """The order's first event."""
    await eventually("the event is in the stream", world.outbox_is_empty)
    documents = [json.loads(event.payload) for event in await world.events()]
    return next(document for document in documents if document["subject"] == order_id)


def ids_of(traceparent: str) -> tuple[str, str]:
    _, trace_id, span_id, _ = traceparent.split("-")
    return trace_id, span_id


async def test_trace_of_a_sampled_caller_leads_from_the_request_to_the_event(
    world: World, collector: Collector
) -> None:
    shop = await world.shop(tracing__endpoint=collector.url, tracing__ratio=0.0)
    order_id = order_id_of(await place(shop, "k-1", f"00-{CALLER[0]}-{CALLER[1]}-01"))
    event = await event_of(world, order_id)
    await shop.stop()
    (request,) = collector.named("POST /v1/orders")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == CALLER
    assert ids_of(event["traceparent"]) == (CALLER[0], request.span_id.hex())
    assert sorted(span.name for span in collector.spans) == ["POST /v1/orders", "admission", "commit", "publish"]
    for span in collector.spans:
        assert span.trace_id == request.trace_id
        assert span.end_time_unix_nano >= span.start_time_unix_nano > 0
        if span is not request:
            assert span.parent_span_id == request.span_id
    attributes = {pair.key: pair.value for pair in request.attributes}
    assert attributes["floodgate.order_id"].string_value == order_id
    assert attributes["http.response.status_code"].int_value == 201
    assert collector.resources["service.name"] == "floodgate"
    assert not any(CANARY.encode() in raw for raw in collector.raw)


async def test_trace_that_the_caller_does_not_sample_has_no_spans_and_reaches_the_event(
    world: World, collector: Collector
) -> None:
    shop = await world.shop(tracing__endpoint=collector.url, tracing__ratio=1.0)
    caller = f"00-{CALLER[0]}-{CALLER[1]}-00"
    event = await event_of(world, order_id_of(await place(shop, "k-1", caller)))
    await shop.stop()
    assert event["traceparent"] == caller
    assert collector.spans == []


async def test_trace_that_begins_here_names_its_span_in_the_event(world: World, collector: Collector) -> None:
    shop = await world.shop(tracing__endpoint=collector.url, tracing__ratio=1.0)
    event = await event_of(world, order_id_of(await place(shop, "k-1")))
    await shop.stop()
    (request,) = collector.named("POST /v1/orders")
    assert request.parent_span_id == b""
    assert event["traceparent"] == f"00-{request.trace_id.hex()}-{request.span_id.hex()}-01"


async def test_tracing_that_is_off_passes_the_callers_trace_on(world: World) -> None:
    shop = await world.shop()
    caller = f"00-{CALLER[0]}-{CALLER[1]}-01"
    event = await event_of(world, order_id_of(await place(shop, "k-1", caller)))
    assert event["traceparent"] == caller


@pytest.mark.parametrize("status", [400, None])
async def test_tracing_without_a_collector_costs_spans_and_no_orders(
    world: World, collector: Collector, status: int | None
) -> None:
    collector.status = status or 200
    endpoint = collector.url if status else "http://127.0.0.1:9/v1/traces"
    shop = await world.shop(tracing__endpoint=endpoint, tracing__ratio=1.0)
    for number in range(5):
        order_id_of(await place(shop, f"k-{number}"))
    await shop.stop()
    assert shop.services.tracer is not None
    assert shop.services.tracer.sink.exported == 0
    assert collector.spans == []
