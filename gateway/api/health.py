"""Whether the process lives, and whether it can take orders: what orchestrators and load balancers ask. Open, and
without any question to a dependency.
"""

from litestar import Response, get

from gateway.api.answers import AnyRequest, text_answer
from gateway.api.operations import OPERATION, Operation, Parameter, Shown
from gateway.api.reading import services_of

TEXT = "text/plain; charset=utf-8"

LIVE = Operation(
    name="live",
    tag="Health",
    summary="Whether the process lives",
    is_open=True,
    answers={200: Shown("It does", media_type="text/plain")},
)
READY = Operation(
    name="ready",
    tag="Health",
    summary="Whether the worker can take orders",
    is_open=True,
    answers={200: Shown("It can", media_type="text/plain"), 503: Shown("It cannot", media_type="text/plain")},
    parameters=(
        Parameter("verbose", "query", str, "Given: a line for each part, such as `[+]ledger ok`"),
        Parameter("exclude", "query", str, "A part that does not count; may be given again"),
    ),
)


@get("/livez", opt={OPERATION: LIVE})
async def live() -> Response[bytes]:
    return text_answer("ok", TEXT)


@get("/readyz", opt={OPERATION: READY})
async def ready(request: AnyRequest) -> Response[bytes]:
    services = services_of(request)
    parts, excluded = services.ready(), set(request.query_params.getall("exclude", []))
    is_ready = all(parts[name] for name in services.required - excluded)
    lines = ["ok" if is_ready else "not ready"]
    if "verbose" in request.query_params:
        faults = services.faults()
        lines = [
            f"[+]{name} excluded: ok" if name in excluded else _line(name, usable=usable, fault=faults.get(name))
            for name, usable in parts.items()
        ]
        if excluded - parts.keys():
            lines.append("warn: a part that is to be excluded does not exist")
        lines.append("readyz check passed" if is_ready else "readyz check failed")
    return text_answer("\n".join(lines), TEXT, 200 if is_ready else 503)


def _line(name: str, *, usable: bool, fault: str | None) -> str:
    if usable:
        return f"[+]{name} ok"
    return f"[-]{name} failed: {fault}" if fault else f"[-]{name} failed"
