"""The numbers of all workers of this host in Prometheus' text format, for those who may read them: they tell how well
the merchant sells.
"""

from litestar import Response, get

from gateway.api.answers import AnyRequest, text_answer
from gateway.api.operations import OPERATION, Operation, Shown
from gateway.api.reading import services_of

TEXT = "text/plain; version=0.0.4; charset=utf-8"

METRICS = Operation(
    name="metrics",
    tag="Health",
    summary="The metrics of all workers of this host",
    scopes=("metrics:read",),
    answers={200: Shown("Prometheus' text format", media_type="text/plain")},
)


@get("/metrics", opt={OPERATION: METRICS})
async def metrics(request: AnyRequest) -> Response[bytes]:
    return text_answer(services_of(request).exporter.text(), TEXT)
