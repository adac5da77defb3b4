"""Requests as bytes, as no client should send them: line, headers, framing and body each mostly right and now and then
anything. TOKEN stands for the token, which is another one in each run.
"""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from gateway.api.examples import ADJUSTMENT_IN, CLIENT_IN, ORDER_ID, PRODUCT_IN, SALE_IN, STOCK_IN
from tests.fuzz.texts import damaged, lines, texts

TOKEN = b"@TOKEN@"
SKU = "A"
ORDER = {"channel": "app", "currency": "CNY", "items": [{"sku": SKU, "quantity": 1}], "note": "请放门口"}
ORDERS = "/v1/orders"
# Few names, so that what is stored stays little; the settings and the client of the run are not among them.
WRITES: list[tuple[str, str, Sequence[Any]]] = [
    ("POST", "/v1/orders/bulk", [{"idempotency_key": "A-77", "order": ORDER}]),
    ("POST", f"/v1/orders/{ORDER_ID}/cancel", [{"reason": "ordered twice"}]),
    ("PUT", "/v1/products/B", [PRODUCT_IN]),
    ("PATCH", "/v1/products/B", [{"active": False, "limit": 3}]),
    ("PUT", "/v1/stock/B", [STOCK_IN]),
    ("PATCH", "/v1/stock/B", [{"shards": 2}]),
    ("POST", "/v1/stock/B/adjustments", [ADJUSTMENT_IN]),
    ("PUT", "/v1/sales/s-1", [SALE_IN]),
    ("POST", "/v1/sales/s-1/close", [{}]),
    ("POST", "/v1/clients", [CLIENT_IN]),
    ("PATCH", "/v1/clients/c-1", [{"channels": ["app", "web"]}]),
    ("POST", "/v1/clients/c-1/tokens", [{"expires_at": "2027-11-10T00:00:00Z"}]),
]
READS = [
    *("/v1/orders", f"/v1/orders/{ORDER_ID}", "/v1/products", "/v1/products/A", "/v1/stock", "/v1/stock/A"),
    *("/v1/stock/A/movements", "/v1/availability", "/v1/sales", "/v1/sales/s-1", "/v1/sales/s-1/report", "/v1/clients"),
    *("/v1/clients/c-1", "/v1/settings", "/v1/settings/history", "/livez", "/readyz", "/metrics", "/schema"),
    *("/schema/openapi.json", "/schema/asyncapi.json", "/", "/v1", "/v2/orders", "/v1/orders/", "*"),
]
PARAMETERS = [
    *("limit", "cursor", "sku", "status", "channel", "customer_id", "external_id", "idempotency_key", "created_from"),
    *("created_to", "sale_id", "verbose", "since", "x", ""),
]
VALUES = [
    *(
        "",
        "0",
        "1",
        "200",
        "201",
        "-1",
        "9" * 5000,
        "A",
        "%00",
        "%ff",
        "%c3%28",
        "%ed%a0%80",
        "%0d%0aX-A:b",
        "%",
        "%zz",
    ),
    *(
        "é",
        "2026-11-11T00:00:00Z",
        "0000-00-00",
        "9999-12-31T23:59:59Z",
        "app",
        "paid",
        "a&b=c",
        "+",
        "a" * 300,
        "AA==",
    ),
    *("e30", "bnVsbA", "W10", "eyJhIjoxfQ", "'; drop table orders", "..", "%2e%2e%2f", "null", "true", "1e9", "\x7f"),
]
METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "get", "BREW", "", "P\x00ST"]
VERSIONS = ["HTTP/1.1"] * 80 + ["HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/1.1 ", "http/1.1", "", "HTTP/1.11"]
AUTHORIZATIONS = [
    *(
        b"Bearer ",
        b"Bearer",
        b"bearer @TOKEN@",
        b"Bearer  @TOKEN@",
        b"Basic YTpi",
        b"Bearer fg_\xff",
        b"Bearer @TOKEN@ x",
    ),
    *(b"", b"@TOKEN@", b"Bearer " + b"x" * 10_000, b"Bearer @TOKEN@\t", b"Bearer @TOKEN@\x01", b"Digest username=a"),
]
# Strings of structured fields, and what is none.
KEYS = [
    *(b'"k"', b"k", b'"a\\"b"', b'"a\\\\b"', b'"a\\b"', b'"half', b'half"', b'""', b"", b'"', b"?1", b":aGk=:", b"1.5"),
    *(b'"k";a=1', b'"k", "l"', b"(a b)", b" k ", b"\tk", b"a b", b"k\x00", b"k\x7f", b"\xff", "键".encode(), b"\\"),
    *(b"k" * 255, b"k" * 256, b'"' + b"k" * 255 + b'"', b'"' + b"k" * 256 + b'"', b"k" * 20_000, b"%41", b"k\x80"),
]
TYPES = [
    *(b"application/json; charset=utf-8", b"application/json;charset=UTF-8", b'application/json; charset="utf-8"'),
    *(b"application/json; charset=latin-1", b"text/plain", b"", b";", b"application/json;;;", b"APPLICATION/JSON"),
    *(b"application/problem+json", b"application/x-ndjson", b"multipart/form-data", b"\xff", b"a" * 9000, b"*/*"),
]
LENGTHS = [
    *(
        b"0",
        b"-1",
        b"+3",
        b"3, 3",
        b"3,4",
        b"0x3",
        b" 3",
        b"3 ",
        b"3.0",
        b"",
        b"abc",
        b"9" * 30,
        b"18446744073709551616",
    ),
    *(b"99999999", b"65537", b"1048577", b"\xb2", b"00000000000000000003", b"1_0"),
]
ENCODINGS = [
    *(b"xchunked", b"gzip, chunked", b"chunked, identity", b"chunked, chunked", b"identity", b"", b"Chunked"),
    b"\x0bchunked",
]
OTHERS = [
    *(b"Host: a", b"Host:", b"Host: a\r\nHost: b", b"Connection: close", b"Connection: keep-alive, upgrade"),
    *(b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk", b"Upgrade: websocket", b"Expect: 100-continue", b"Expect: x"),
    *(b'If-Match: "1"', b'If-Match: "0"', b"If-Match: *", b'If-Match: "1", "2"', b'If-Match: W/"1"', b"If-Match: \xff"),
    *(b"If-None-Match: *", b'If-None-Match: "1"', b'If-Match: "' + b"9" * 400 + b'"', b"If-Match:", b"Accept: \xff"),
    *(b"traceparent: 00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"traceparent: 00-\xff", b"traceparent: x"),
    *(b"X-A: b\r\n folded", b"X-A : b", b"X-A", b": b", b"X-\x00A: b", b"X-A: \x00", b"X-A: \r", b"X-A: a\nX-B: b"),
    *(
        b"X-A: " + b"a" * 20_000,
        b"\r\n".join(b"X-%d: a" % n for n in range(101)),
        b"Cookie: a=b",
        b"X-A: b\r\n\r\nX-B: c",
    ),
    *(b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Idempotency-Key: k2", b"Authorization: Bearer x"),
    *(b"X-Forwarded-Host: a", b"X-Forwarded-For: 1.1.1.1", b"X-HTTP-Method-Override: DELETE", b"Range: bytes=0-1"),
    *(b"Accept-Encoding: gzip", b"Content-Encoding: gzip", b"TE: trailers", b"Trailer: X", b"Early-Data: 1"),
]
CHUNKINGS = [
    *(b"zz\r\nabc\r\n0\r\n\r\n", b"-1\r\nabc\r\n", b"ffffffffffffffffff\r\nabc\r\n", b"3\nabc\n0\n\n"),
    *(b"3\r\nabcd\r\n0\r\n\r\n", b"3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n", b"0\r\n\r\n", b"", b"3\r\nab"),
    *(b"\r\n", b"3 \r\nabc\r\n0\r\n\r\n", b"0x3\r\nabc\r\n0\r\n\r\n"),
]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request, and perhaps what comes behind it."""
    kind = draw(st.integers(0, 9))
    if kind < 5:
        method, target, examples = "POST", ORDERS, [ORDER]
    elif kind < 8:
        method, target, examples = draw(st.sampled_from(WRITES))
    else:
        method, target, examples = draw(st.sampled_from(METHODS)), draw(_targets()), []
    body = draw((lines if target.endswith("bulk") else texts)(examples)) if examples else b""
    target = draw(
        st.sampled_from([target] * 9 + [target + "?x=1", target + "/", target.upper(), target.replace("/", "%2F")])
    )
    head = [f"{method} {target} {draw(st.sampled_from(VERSIONS))}".encode("utf-8", "replace"), b"Host: floodgate"]
    usual = b"application/x-ndjson" if target.endswith("bulk") else b"application/json"
    head += _one_of(draw, b"Authorization", b"Bearer " + TOKEN, AUTHORIZATIONS)
    head += _one_of(draw, b"Content-Type", usual, TYPES)
    head += _one_of(draw, b"Idempotency-Key", b'"%d"' % draw(st.integers(0, 2**60)), KEYS)
    framing, body = draw(_framed(body)) if body or draw(st.booleans()) else ([], body)
    head += framing + draw(st.just([]) | st.just([]) | st.lists(st.sampled_from(OTHERS), max_size=2))
    raw = b"\r\n".join([*head, b"", b""]) + body
    return draw(damaged(raw)) if draw(st.integers(0, 11)) == 11 else raw


def _one_of(draw: st.DrawFn, name: bytes, usual: bytes, odd: Sequence[bytes]) -> list[bytes]:
    """A header: mostly as it should be, else another value, none, or two."""
    fate = draw(st.integers(0, 31))
    if fate < 26:
        return [name + b": " + usual]
    if fate < 30:
        return [name + b": " + draw(st.sampled_from(odd) | st.binary(max_size=6))]
    return [] if fate == 30 else [name + b": " + usual, name.lower() + b":" + draw(st.sampled_from(odd))]


@st.composite
def _targets(draw: st.DrawFn) -> str:
    path: str = draw(st.sampled_from(READS + [target for _, target, _ in WRITES]))
    if draw(st.integers(0, 3)) == 0:
        parts = path.split("/")
        parts[draw(st.integers(0, len(parts) - 1))] = draw(st.sampled_from(VALUES))
        path = "/".join(parts)
    pairs = draw(st.lists(st.tuples(st.sampled_from(PARAMETERS), st.sampled_from(VALUES)), max_size=3))
    query = "&".join(f"{name}={value}" for name, value in pairs)
    return f"{path}?{query}" if query or draw(st.integers(0, 9)) == 9 else path


@st.composite
def _framed(draw: st.DrawFn, body: bytes) -> tuple[list[bytes], bytes]:
    """Headers that say how long the body is, and what is sent of it."""
    length = b"Content-Length: %d" % len(body)
    chunked = b"Transfer-Encoding: chunked"
    fate = draw(st.integers(0, 19))
    if fate < 12:
        return [length], body
    if fate < 15:
        size = draw(st.sampled_from((1, 7, 1000, 70_000)))
        return [chunked], _chunks(body[:2000] if size == 1 else body, size)
    if fate == 15:
        return draw(st.permutations([length, chunked])), _chunks(body, 1000)
    return draw(
        st.sampled_from(LENGTHS).map(lambda told: ([b"Content-Length: " + told], body))
        | st.sampled_from((1, 5, -1, -5)).map(lambda more: ([b"Content-Length: %d" % (len(body) + more)], body))
        | st.sampled_from(CHUNKINGS).map(lambda sent: ([chunked], sent))
        | st.sampled_from(ENCODINGS).map(lambda told: ([b"Transfer-Encoding: " + told], _chunks(body, 1000)))
    )


def _chunks(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
