"""HEAD, OPTIONS and answers without a body over a real connection: none of them leaves a byte behind that the next
answer would begin with.
"""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.served import Served


@pytest.fixture
async def client(postgres_url: str, nats_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A client with one connection."""
    gateway = Served(postgres_url, nats_url)
    await gateway.prepare({"A": 10})
    await gateway.start()
    headers = {"Authorization": f"Bearer {gateway.token}"}
    async with aiohttp.ClientSession(
        gateway.url, headers=headers, connector=aiohttp.TCPConnector(limit=1), timeout=aiohttp.ClientTimeout(20)
    ) as client:
        yield client
    await gateway.close()


async def test_head_is_as_get_without_the_body_and_leaves_the_connection_as_it_was(
    client: aiohttp.ClientSession,
) -> None:
    for target in ("/livez", "/v1/stock/A", "/v1/orders?limit=1", "/v1/nothing", "/schema/openapi.json"):
        async with client.get(target) as shown:
            body = await shown.read()
        async with client.head(target) as head:
            assert (head.status, await head.read()) == (shown.status, b"")
            assert head.headers["Content-Length"] == str(len(body))
            assert head.headers.get("ETag") == shown.headers.get("ETag")


async def test_options_and_revoking_leave_the_connection_as_it_was(client: aiohttp.ClientSession) -> None:
    async with client.post("/v1/clients", json={"name": "app", "scopes": ["stock:read"]}) as made:
        (token,) = (await made.json())["tokens"]
    for _ in range(2):
        async with client.delete(f"/v1/clients/app/tokens/{token['token_id']}") as ended:
            assert (ended.status, await ended.read()) == (204, b"")
        async with client.options("/v1/clients/app") as told:
            assert (told.status, told.headers["Allow"]) == (204, "GET, HEAD, OPTIONS, PATCH")
            assert await told.read() == b""
    async with client.get("/v1/clients/app") as shown:
        assert (await shown.json())["tokens"][0]["revoked_at"]
