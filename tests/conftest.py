"""What every test may ask for: the servers of tests/servers.py. The caller's own settings do not reach the tests."""

import os

import pytest

pytest_plugins = ["tests.servers", "tests.redis_cluster"]

KEPT = {"FLOODGATE_CORE", "FLOODGATE_SANITIZE"}  # Which implementation is tested, and how it was built.


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole systems first: they take longest, and one that is left for the end leaves the other processes idle."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)


def pytest_configure() -> None:
    for name in [name for name in os.environ if name.startswith("FLOODGATE_") and name not in KEPT]:
        del os.environ[name]
