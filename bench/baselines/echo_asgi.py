"""The ceiling over ASGI: `python -m bench.baselines.echo_asgi PORT [WORKERS [ANSWER_BYTES]]`.

It reads a body as the gateway does: to the length that was announced, since asking the server once more costs a change
of threads.
"""

from granian.constants import Interfaces

from bench.baselines import echo
from gateway.edge.requests import Receive, Scope, Send

ARGUMENTS = echo.parse_arguments()
BODY = {"type": "http.response.body", "body": echo.answer_of(ARGUMENTS.answer_bytes)}
START = {
    "type": "http.response.start",
    "status": 201,
    "headers": [
        (b"content-type", b"application/json"),
        (b"content-length", str(ARGUMENTS.answer_bytes).encode()),
    ],
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Decode one order, and answer."""
    length = int(dict(scope["headers"])[b"content-length"])
    body: bytes = (await receive())["body"]
    while len(body) < length:
        body += (await receive())["body"]
    echo.decode(body)
    await send(START)
    await send(BODY)


if __name__ == "__main__":
    echo.serve("bench.baselines.echo_asgi", app, Interfaces.ASGINL, ARGUMENTS)
