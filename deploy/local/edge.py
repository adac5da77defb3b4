"""The few questions that the local stack asks the HTTP edge: is it ready, and the requests that load the demo
catalogue.
"""

import http.client
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

TIMEOUT_S = 5.0


class Answer(NamedTuple):
    """`status` 0: nobody answered, and `text` says why."""

    status: int
    text: str


def request(
    url: str, method: str, path: str, *, token: str = "", body: Any = None, headers: Mapping[str, str] | None = None
) -> Answer:
    parts = urlsplit(url)
    assert parts.hostname
    sent = {"Authorization": f"Bearer {token}"} if token else {}
    if body is not None:
        sent["Content-Type"] = "application/json"
    sent.update(headers or {})
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        response = connection.getresponse()
        return Answer(response.status, response.read().decode(errors="replace"))
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, str(error) or type(error).__name__)
    finally:
        connection.close()


def is_ready(url: str) -> bool:
    return request(url, "GET", "/readyz").status == http.client.OK


def why_not_ready(url: str) -> str:
    answer = request(url, "GET", "/readyz?verbose")
    return f"/readyz?verbose answers {answer.status or 'nothing'}: {answer.text.strip()}"


def read_token(path: Path) -> str:
    """The bearer token of the local client; empty when there is none."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
