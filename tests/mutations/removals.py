"""What is taken away of the product's own code, by guard. Nothing of the product is imported here: each removal is
given the module that it changes, once that has been executed.
"""

from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

VARIABLE = "REMOVED_GUARD"


class Removal(NamedTuple):
    """`make` is given the module and what stands under `name` in it, and returns what is to stand there."""

    module: str
    name: str
    make: Callable[[ModuleType, Any], Any]


def _cut(fragment: str) -> Callable[[ModuleType, str], str]:
    """A statement without a condition, which is there once."""

    def make(_: ModuleType, statement: str) -> str:
        assert statement.count(fragment) == 1, f"{fragment!r} is not there once"
        return statement.replace(fragment, "")

    return make


def _believes(_: ModuleType, _resolve: object) -> object:
    async def resolve(*_arguments: object) -> bool:
        return True

    return resolve


def _writes_only(module: ModuleType, _append: object) -> object:
    def append_durably(descriptor: int, content: bytes, at: int) -> None:
        module.write_all(descriptor, content, at)

    return append_durably


def _locks_nothing(_: ModuleType, fcntl: ModuleType) -> object:
    return SimpleNamespace(**vars(fcntl) | {"flock": lambda *_: None})


def _believes_heads(module: ModuleType, _unpack: object) -> object:
    def unpack_head(raw: bytes, _seed: int) -> object:
        if len(raw) != module.HEAD_BYTES:
            return None
        mark, *fields = module._FIELDS.unpack_from(raw)
        head = module.Head(*fields)
        return head if mark == module.MARK and head.length <= module.PAYLOAD_BYTES_MAX else None

    return unpack_head


def _believes_payloads(_: ModuleType, _is_payload: object) -> object:
    return lambda payload, head, _seed: len(payload) == head.length


def _has_no_id(_: ModuleType, headers: Callable[[Any], dict[str, str]]) -> object:
    return lambda event: {name: value for name, value in headers(event).items() if name != "Nats-Msg-Id"}


def _refuses_at_once(_: ModuleType, _refuse: object) -> object:
    return lambda _admission, refusal, _request, outcome: outcome.set_result(refusal)


def _refuses(_: ModuleType, _unless_known: object) -> object:
    async def unless_known(_admission: object, refusal: object, *_known: object) -> object:
        return refusal

    return unless_known


REMOVALS: dict[str, Sequence[Removal]] = {
    "batch outcome": [Removal("persistence.postgres.control", "resolve", _believes)],
    "known key": [
        Removal("gateway.admission", "Admission._refuse_unless_known", _refuses_at_once),
        Removal("gateway.admission", "Admission._unless_known", _refuses),
    ],
    "journal fsync": [Removal("persistence.journal.file", "append_durably", _writes_only)],
    "journal lock": [Removal("persistence.journal.locked", "fcntl", _locks_nothing)],
    "journal pins": [
        Removal("persistence.postgres.control", "_SILENT", _cut(" and journal is null")),
        Removal("persistence.postgres.control", "_STRANDED", _cut(" and (w.owner is null or w.journal is null)")),
    ],
    "CRC": [
        Removal("persistence.journal.format", "unpack_head", _believes_heads),
        Removal("persistence.journal.format", "is_payload", _believes_payloads),
    ],
    "event id": [Removal("persistence.nats.stream", "_headers", _has_no_id)],
}
