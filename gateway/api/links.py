"""What to do with an answer: the links of the OpenAPI document, found by comparing what an operation gives with what
others take.

An answer whose member, always there, is called like a part of an operation's path leads there: to whatever can be
done with the resource itself, its ETag with it, and to what only shows another one. A page leads to the next one.
"""

from typing import Any, NamedTuple

import msgspec

from gateway.api.operations import Operation, Shown


class Routed(NamedTuple):
    """An operation, and how it is asked for."""

    method: str
    path: str
    operation: Operation


def links_of(source: Routed, shown: Shown, everything: list[Routed]) -> dict[str, Any]:
    """The links of one answer of `source`, by the operation that each leads to."""
    members = _members(shown)
    links = {}
    for target in everything:
        parameters = _taken(members, source, shown, target)
        if parameters:
            links[target.operation.name] = {"operationId": target.operation.name, "parameters": parameters}
    return links


def _members(shown: Shown) -> frozenset[str]:
    """The members that every such answer has."""
    is_object = isinstance(shown.kind, type) and issubclass(shown.kind, msgspec.Struct)
    if not is_object:
        return frozenset()
    return frozenset(field.encode_name for field in msgspec.structs.fields(shown.kind) if field.required)


def _taken(members: frozenset[str], source: Routed, shown: Shown, target: Routed) -> dict[str, str]:
    """What `target` takes of the answer, empty when it does not lead there."""
    if target is source:
        return {"query.cursor": "$response.body#/next_cursor"} if "next_cursor" in members else {}
    path = [parameter.name for parameter in target.operation.parameters if parameter.place == "path"]
    is_same = _resource(source) == _resource(target)
    if not path or not members.issuperset(path) or not (is_same or target.method == "get"):
        return {}
    taken = {f"path.{name}": f"$response.body#/{name}" for name in path}
    if is_same and "ETag" in shown.headers and _takes_etag(target.operation):
        taken["header.If-Match"] = "$response.header.ETag"
    return taken


def _takes_etag(operation: Operation) -> bool:
    return any(parameter.name == "If-Match" for parameter in operation.parameters)


def _resource(routed: Routed) -> str:
    return routed.path.partition("{")[0].rstrip("/")
