"""A collector of traces for the tests: takes OTLP over HTTP, keeps the spans, and answers what it is told to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """`resources` are the attributes that came with the spans."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.raw: list[bytes] = []
        self.spans: list[Any] = []
        self.resources: dict[str, str] = {}

    async def take(self, request: web.Request) -> web.Response:
        self.raw.append(await request.read())
        if self.status == 200:
            message = ExportTraceServiceRequest.FromString(self.raw[-1])
            for resource_spans in message.resource_spans:
                self.resources |= {pair.key: pair.value.string_value for pair in resource_spans.resource.attributes}
                self.spans += [span for scope in resource_spans.scope_spans for span in scope.spans]
        return web.Response(status=self.status)

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


@asynccontextmanager
async def running_collector() -> AsyncIterator[Collector]:
    collector = Collector()
    application = web.Application()
    application.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
        yield collector
    finally:
        await runner.cleanup()
