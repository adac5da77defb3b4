"""The commands' HTTP client: which answers are final, what is asked again, and how it gives up."""

from collections.abc import Mapping

import pytest

from gateway.cli.edge import Answer, Edge, EdgeError
from gateway.cli.preparing import accepted

OK = Answer(200, {}, b"{}")


class ScriptedEdge(Edge):
    """An Edge whose sends follow a script; its pauses take no time."""

    def __init__(self, *script: Answer | Exception, wait_s: float = 60.0) -> None:
        super().__init__("http://gateway", "fg_token", wait_s, self._note)
        self._script = list(script)
        self.pauses: list[float] = []
        self.sent: list[tuple[str, str, bytes | None, Mapping[str, str]]] = []

    async def _note(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def _send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        self.sent.append((method, path, body, headers))
        step = self._script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


@pytest.mark.parametrize(
    "first",
    [
        Answer(503, {}, b'{"code":"overloaded"}'),
        Answer(429, {}, b""),
        Answer(500, {}, b""),
        Answer(408, {}, b""),
        Answer(409, {}, b'{"code":"key_in_flight"}'),
        ConnectionRefusedError("refused"),
        TimeoutError(),
    ],
)
async def test_ask_without_final_answer_sends_the_same_again(first: Answer | Exception) -> None:
    edge = ScriptedEdge(first, OK)

    answer = await edge.ask("POST", "/v1/orders", {"a": 1}, {"Idempotency-Key": "k"})

    assert answer is OK
    assert edge.sent[0] == edge.sent[1]


@pytest.mark.parametrize("status", [200, 201, 202, 400, 404, 409, 412, 422])
async def test_ask_final_answer_is_not_asked_again(status: int) -> None:
    edge = ScriptedEdge(Answer(status, {}, b"{}"))

    assert (await edge.ask("GET", "/")).status == status


async def test_ask_retry_after_is_respected() -> None:
    edge = ScriptedEdge(Answer(503, {"Retry-After": "2"}, b""), OK)

    await edge.ask("GET", "/")

    assert edge.pauses == [2.0]


async def test_ask_pauses_grow() -> None:
    edge = ScriptedEdge(*[Answer(503, {}, b"")] * 6, OK)

    await edge.ask("GET", "/")

    assert edge.pauses == sorted(edge.pauses)
    assert edge.pauses[-1] > edge.pauses[0]


async def test_ask_without_answer_in_time_says_what_came_last() -> None:
    edge = ScriptedEdge(ConnectionRefusedError("nobody listens"), wait_s=0.0)

    with pytest.raises(EdgeError, match=r"gave no final answer .* nobody listens"):
        await edge.ask("GET", "/v1/products")


@pytest.mark.parametrize(("status", "remedy"), [(401, "--token-file"), (403, "floodgate client list")])
async def test_ask_without_permission_is_an_error_that_says_what_to_do(status: int, remedy: str) -> None:
    edge = ScriptedEdge(Answer(status, {}, b'{"code":"scope_missing","detail":"needs stock:write"}'))

    with pytest.raises(EdgeError, match=rf"does not permit it: .* needs stock:write\. .*{remedy}"):
        await edge.ask("GET", "/")


def test_accepted_of_what_is_unknown_says_where_to_look() -> None:
    problem = Answer(404, {}, b'{"code":"not_found","title":"There is nothing here"}')

    with pytest.raises(EdgeError, match=r"^NOPE: 404 not_found: There is nothing here\. `floodgate product list`"):
        accepted(problem, "NOPE")


def test_complaint_of_problem_names_every_fault() -> None:
    body = b'{"code":"invalid","errors":[{"pointer":"#/a","detail":"is wrong"},{"pointer":"#/b","detail":"too"}]}'

    assert Answer(422, {}, body).complaint == "422 invalid: #/a is wrong; #/b too"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"code":7}', b"\xff"])
def test_code_of_answer_that_is_no_problem_is_its_status(body: bytes) -> None:
    answer = Answer(502, {}, body)

    assert answer.code == "http_502"
    assert answer.complaint.startswith("502")
