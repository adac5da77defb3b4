"""Who is asking: the tokens in force, and nothing that was in force a moment ago."""

import datetime as dt

import pytest

from gateway import access
from gateway.access import Access
from gateway.domain.access import SCOPES, Client, new_token, token_hash
from tests.unit.fake_ledger import START_S
from tests.unit.fakes import SHOP, FakeSession

TOKEN = "fg_" + "a" * 43


@pytest.fixture
def tokens() -> Access:
    tokens = Access()
    tokens.replace([(token_hash(TOKEN), SHOP)])
    return tokens


def bearer(token: str = TOKEN) -> bytes:
    return f"Bearer {token}".encode()


def test_access_valid_token_gives_its_client(tokens: Access) -> None:
    assert tokens.find(bearer(), START_S) is SHOP
    assert tokens.find(bearer(), START_S) is SHOP


def test_access_scheme_is_case_insensitive(tokens: Access) -> None:
    assert tokens.find(b"bearer " + TOKEN.encode(), START_S) is SHOP


@pytest.mark.parametrize(
    "header",
    [b"", b"Bearer", b"Bearer ", TOKEN.encode(), b"Basic " + TOKEN.encode(), bearer(TOKEN + "b"), b"Bearer \xff"],
)
def test_access_anything_else_is_nobody(tokens: Access, header: bytes) -> None:
    assert tokens.find(header, START_S) is None


def test_access_revoked_token_is_refused_though_it_was_used_before(tokens: Access) -> None:
    assert tokens.find(bearer(), START_S) is SHOP
    tokens.replace([])
    assert tokens.find(bearer(), START_S) is None


def test_access_changed_client_is_seen_though_its_token_was_used_before(tokens: Access) -> None:
    tokens.find(bearer(), START_S)
    changed = SHOP._replace(scopes=frozenset())
    tokens.replace([(token_hash(TOKEN), changed)])
    assert tokens.find(bearer(), START_S) is changed


def test_access_token_expires_at_its_instant_though_it_was_used_before(tokens: Access) -> None:
    expiring = SHOP._replace(expires_at=START_S)
    tokens.replace([(token_hash(TOKEN), expiring)])
    assert tokens.find(bearer(), START_S - 1) is expiring
    assert tokens.find(bearer(), START_S) is None


def test_access_unknown_tokens_are_not_remembered(tokens: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "SEEN_MAX", 2)
    for number in range(10):
        tokens.find(bearer(f"guess-{number}"), START_S)
    assert tokens.find(bearer(), START_S) is SHOP


def test_access_more_headers_than_are_remembered_are_still_known(
    tokens: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "SEEN_MAX", 2)
    for spaces in range(1, 8):
        assert tokens.find(b"Bearer" + b" " * spaces + TOKEN.encode(), START_S) is SHOP


def test_client_sells_on_its_channels_alone() -> None:
    assert SHOP.sells_on("app")
    assert not SHOP.sells_on("web")


def test_client_of_every_channel_sells_on_any() -> None:
    assert SHOP._replace(channels=frozenset({"*"})).sells_on("web")


def test_client_may_what_its_scopes_say() -> None:
    client = Client(1, "shop", frozenset({"orders:read"}), frozenset())
    assert [scope for scope in SCOPES if client.may(scope)] == ["orders:read"]


def test_token_is_new_each_time_and_recognisable() -> None:
    first, second = new_token(), new_token()
    assert first != second
    assert first.startswith("fg_")


def test_access_before_the_tokens_are_loaded_calls_no_token_wrong() -> None:
    tokens = Access()
    assert tokens.refusal().code == "ledger_away"
    tokens.replace([])
    assert tokens.refusal().code == "unauthenticated"


class Writing:
    """Stands for the connection to the ledger: remembers the last uses that it was told."""

    def __init__(self) -> None:
        self.told: list[dict[int, float]] = []

    async def execute(self, _statement: str, tokens: list[int], times: list[dt.datetime], _every_s: int) -> None:
        self.told.append(dict(zip(tokens, (at.timestamp() for at in times), strict=True)))


@pytest.fixture
def used() -> Access:
    """Two tokens, numbered 7 and 8."""
    used = Access()
    used.replace([(token_hash("one"), SHOP._replace(token_id=7)), (token_hash("two"), SHOP._replace(token_id=8))])
    return used


async def test_access_tells_the_ledger_the_last_use_of_each_token_once(used: Access) -> None:
    ledger = Writing()
    for at in (START_S, START_S + 1):
        used.find(bearer("one"), at)
    used.find(bearer("two"), START_S)
    for _ in range(2):
        await used.flush(FakeSession(ledger))
    assert ledger.told == [{7: START_S + 1, 8: START_S}]


async def test_access_of_nobody_is_no_use(used: Access) -> None:
    ledger = Writing()
    used.replace([(token_hash("one"), SHOP._replace(token_id=7, expires_at=START_S))])
    used.find(bearer("one"), START_S)
    used.find(bearer("three"), START_S)
    await used.flush(FakeSession(ledger))
    assert ledger.told == []


async def test_access_without_the_ledger_tells_the_last_use_later(used: Access) -> None:
    ledger = Writing()
    session = FakeSession(ledger)
    session.away = True
    used.find(bearer("one"), START_S)
    used.find(bearer("two"), START_S)
    await used.flush(session)
    session.away = False
    used.find(bearer("one"), START_S + 5)
    await used.flush(session)
    assert ledger.told == [{7: START_S + 5, 8: START_S}]
