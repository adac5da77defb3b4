"""The tests of the edge run over both ways in which a worker serves: by parts of Granian that are its own affair, and
as Granian does.
"""

import pytest

from gateway.edge.direct import ASGI, DIRECT, VARIABLE

BOTH_WAYS = {"test_early_answers", "test_served_bodies", "test_served_methods"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of these files twice."""
    if metafunc.module.__name__.rpartition(".")[2] in BOTH_WAYS:
        metafunc.parametrize("edge_way", [DIRECT, ASGI], indirect=True)


@pytest.fixture(autouse=True)
def edge_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the workers of a test serve: as it is asked of them, or else as they do by themselves."""
    way: str | None = getattr(request, "param", None)
    if way is not None:
        monkeypatch.setenv(VARIABLE, way)
    return way or DIRECT
