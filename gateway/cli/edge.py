"""The commands' HTTP client: asks the gateway, again while an answer is not final, and never sends two different
requests under one key.

An answer is final unless it says that the same request may succeed later (503, 429, a key in flight) or no answer
came at all. Asking again is safe: PUT is, and orders carry their key.
"""

import asyncio
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
import msgspec
from yarl import URL

CONCURRENCY = 16
REQUEST_TIMEOUT_S = 30.0
ANSWER_WAIT_S = 60.0  # how long a request of a long command is asked again
SHORT_WAIT_S = 5.0  # the same for a command that somebody waits for
PAUSE_S_MIN = 0.1
PAUSE_S_MAX = 5.0
PERMISSION = {
    401: "Name the file of a live token with --token-file; `floodgate client rotate NAME` makes one",
    403: "Use the token of a client that may; `floodgate client list` shows what each may",
}
CONNECT_ERRORS = (aiohttp.ClientError, OSError, TimeoutError, ssl.SSLError)

Sleep = Callable[[float], Awaitable[None]]

# Money in a file may have a fraction of a minor unit: it is sent exactly as it stands, and refused.
encode = msgspec.json.Encoder(decimal_format="number").encode


class EdgeError(Exception):
    """The gateway cannot be used; the message says why and what to do."""


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def document(self) -> Any:
        """The body as JSON, None when it is not."""
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError:
            return None

    @property
    def code(self) -> str:
        """The code of a problem; of anything else its status."""
        document = self.document
        code = document.get("code") if isinstance(document, dict) else None
        return code if isinstance(code, str) else f"http_{self.status}"

    @property
    def final(self) -> bool:
        return (
            self.status < 500
            and self.status not in {408, 429}
            and not (self.status == 409 and self.code == "key_in_flight")
        )

    @property
    def complaint(self) -> str:
        """The problem in one line."""
        document = self.document
        if not isinstance(document, dict):
            return f"{self.status} {self.body[:200].decode(errors='replace')}"
        faults = [f"{fault.get('pointer', '#')} {fault.get('detail', '')}" for fault in document.get("errors") or ()]
        said = "; ".join(faults) or document.get("detail") or document.get("title") or ""
        return f"{self.status} {self.code}: {said}"


class Edge:
    """A gateway and a client's token. An async context manager."""

    def __init__(self, url: str, token: str, wait_s: float = ANSWER_WAIT_S, sleep: Sleep = asyncio.sleep) -> None:
        self.url = url
        self._sleep = sleep
        self._headers = {"Authorization": f"Bearer {token}"}
        self._wait_s = wait_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(limit=CONCURRENCY),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def ask(
        self, method: str, path: str, document: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """The final answer; `path` is percent-encoded. Raises EdgeError: none came in time, or it is not permitted."""
        body = None if document is None else encode(document)
        deadline = time.monotonic() + self._wait_s
        pause_s, complaint = PAUSE_S_MIN, ""
        while True:
            try:
                answer = await self._send(method, path, body, headers or {})
            except CONNECT_ERRORS as error:
                complaint, asked_s = str(error) or type(error).__name__, 0.0
            else:
                if answer.final:
                    return self._permitted(answer)
                complaint, asked_s = answer.complaint, _retry_after_s(answer)
            wait_s = max(asked_s, random.uniform(pause_s / 2, pause_s))  # noqa: S311 - spreads retries, guards nothing
            if time.monotonic() + wait_s > deadline:
                raise EdgeError(
                    f"{method} {path}: {self.url} gave no final answer for {self._wait_s:.0f} s. Last: {complaint}."
                    " `floodgate status` says whether a local system runs, /readyz?verbose why one does not answer"
                )
            await self._sleep(wait_s)
            pause_s = min(pause_s * 2, PAUSE_S_MAX)

    async def _send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        assert self._session is not None, "an Edge is used inside `async with`"
        typed = {"Content-Type": "application/json", **headers} if body is not None else headers
        # encoded=True: a slash in a SKU stays the %2F that it is.
        async with self._session.request(
            method, URL(self.url + path, encoded=True), data=body, headers=typed, allow_redirects=False
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    def _permitted(self, answer: Answer) -> Answer:
        if answer.status in {401, 403}:
            raise EdgeError(f"{self.url} does not permit it: {answer.complaint}. {PERMISSION[answer.status]}")
        return answer


def _retry_after_s(answer: Answer) -> float:
    text = answer.headers.get("Retry-After", "")
    return min(float(text), PAUSE_S_MAX) if text.isdigit() else 0.0
