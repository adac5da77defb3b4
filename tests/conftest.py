"""What every test may ask for: the servers of tests/servers.py. The caller's own settings do not reach the tests, and
what a command does to its process's logging does not reach the next test.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

pytest_plugins = ["tests.servers", "tests.redis_cluster"]

KEPT = {"FLOODGATE_CORE", "FLOODGATE_SANITIZE", "FLOODGATE_CASES"}  # What is tested, how it was built, how long.


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole systems first: they take longest, and one that is left for the end leaves the other processes idle."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)


def pytest_configure() -> None:
    for name in [name for name in os.environ if name.startswith("FLOODGATE_") and name not in KEPT]:
        del os.environ[name]


@pytest.fixture(autouse=True)
def _logging_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loggers ask anew how to log at each line: one that is kept would go on writing where a former test has told it
    to.
    """
    configure = structlog.configure

    def configure_uncached(**given: Any) -> None:
        configure(**given | {"cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", configure_uncached)
    yield
    structlog.reset_defaults()
