"""Following: topics are loaded in their order, each when it has changed."""

from typing import Any

import pytest

from gateway.following import Following, Topic
from tests.unit.fakes import FakeLog, FakeSession


class FakeRevisions:
    """Stands for a connection: answers the values of the topics, and loads what a test asks for."""

    def __init__(self, **values: int) -> None:
        self.values = values
        self.loaded: list[str] = []
        self.held: set[str] = set()
        self.session = FakeSession(self)

    async def fetch(self, _: str) -> list[dict[str, Any]]:
        return [{"topic": topic, "value": value} for topic, value in self.values.items()]

    def topic(self, name: str) -> Topic:
        async def load(_: object) -> int | None:
            self.loaded.append(name)
            return None if name in self.held else self.values[name]

        return Topic(name, load)

    def following(self, *names: str) -> Following:
        return Following(self.session, [self.topic(name) for name in names])

    async def look(self, following: Following) -> list[str]:
        """What one look loads."""
        self.loaded.clear()
        await self.session.run(following._follow)
        return list(self.loaded)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> FakeLog:
    log = FakeLog()
    monkeypatch.setattr("gateway.following.log", log)
    return log


async def test_following_loads_what_has_changed_in_order() -> None:
    ledger = FakeRevisions(a=1, b=1, c=1)
    following = ledger.following("c", "a", "b")
    assert await ledger.look(following) == ["c", "a", "b"]
    assert await ledger.look(following) == []
    ledger.values |= {"b": 2, "c": 2}
    assert await ledger.look(following) == ["c", "b"]


async def test_following_topic_that_the_ledger_has_not_is_logged_once_and_the_others_are_loaded(log: FakeLog) -> None:
    ledger = FakeRevisions(b=1)
    following = ledger.following("a", "b", "c")
    assert await ledger.look(following) == ["b"]
    assert await ledger.look(following) == []
    assert log.names == ["ledger_schema_is_old", "ledger_schema_is_old"]


async def test_following_topic_that_comes_later_is_loaded(log: FakeLog) -> None:
    ledger = FakeRevisions(b=1)
    following = ledger.following("a", "b")
    await ledger.look(following)
    ledger.values["a"] = 0
    assert await ledger.look(following) == ["a"]
    assert log.names == ["ledger_schema_is_old"]


async def test_following_topic_that_cannot_be_loaded_keeps_back_those_after_it() -> None:
    ledger = FakeRevisions(a=1, b=1, c=1)
    ledger.held.add("b")
    following = ledger.following("a", "b", "c")
    assert await ledger.look(following) == ["a", "b"]
    assert await ledger.look(following) == ["b"]
    ledger.held.clear()
    assert await ledger.look(following) == ["b", "c"]
