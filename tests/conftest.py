"""What every test may ask for: the servers of tests/servers.py. The caller's own settings do not reach the tests."""

import os

pytest_plugins = ["tests.servers", "tests.redis_cluster"]

KEPT = {"FLOODGATE_CORE", "FLOODGATE_SANITIZE"}  # Which implementation is tested, and how it was built.


def pytest_configure() -> None:
    for name in [name for name in os.environ if name.startswith("FLOODGATE_") and name not in KEPT]:
        del os.environ[name]
