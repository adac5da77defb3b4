"""When the parts of Granian that are its own affair are used, and when Granian serves by itself."""

import pytest

from gateway.edge import direct
from gateway.settings import SettingsError


def test_way_of_the_granian_that_is_installed_is_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(direct.VARIABLE, raising=False)
    assert direct.way() == "direct"


@pytest.mark.parametrize("asked_for", [None, "direct"])
def test_way_of_another_granian_is_asgi(monkeypatch: pytest.MonkeyPatch, asked_for: str | None) -> None:
    monkeypatch.setattr(direct, "version", lambda _: "99.0.0")
    if asked_for is not None:
        monkeypatch.setenv(direct.VARIABLE, asked_for)
    assert direct.way() == "asgi"


def test_way_that_is_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(direct.VARIABLE, "asgi")
    assert direct.way() == "asgi"


def test_way_that_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(direct.VARIABLE, "rsgi")
    with pytest.raises(SettingsError, match="`direct` or `asgi`"):
        direct.way()
