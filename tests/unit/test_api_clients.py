"""Clients that are refused before the ledger is asked."""

from typing import Any

import msgspec
import pytest

from gateway import api
from tests.api import call, services

CLIENT = {"name": "app", "scopes": ["orders:read"], "channels": ["app"]}


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"name": "App"}, "#/name"),
        ({"name": ""}, "#/name"),
        ({"name": "a" * 65}, "#/name"),
        ({"scopes": []}, "#/scopes"),
        ({"scopes": ["orders"]}, "#/scopes/0"),
        ({"scopes": ["orders:read", "all"]}, "#/scopes/1"),
        ({"channels": ["App"]}, "#/channels/0"),
        ({"channels": ["**"]}, "#/channels/0"),
        ({"channels": None}, "#/channels"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "#/expires_at"),
        ({"expires_at": "tomorrow"}, "#/expires_at"),
        ({"token": "fg_mine"}, "#/token"),
    ],
)
async def test_create_client_out_of_bounds_names_the_field(more: dict[str, Any], pointer: str) -> None:
    reply = await call(api.create(services()), "POST", "/v1/clients", msgspec.json.encode(CLIENT | more))
    assert (reply.status, reply.code) == (422, "invalid")
    assert [error["pointer"] for error in reply.json["errors"]] == [pointer]


@pytest.mark.parametrize("body", [b'{"expires_at":"2020-01-01T00:00:00Z"}', b'{"expires_at":1}'])
async def test_create_token_that_is_over_before_it_begins_is_422(body: bytes) -> None:
    reply = await call(api.create(services()), "POST", "/v1/clients/app/tokens", body)
    assert [error["pointer"] for error in reply.json["errors"]] == ["#/expires_at"]
