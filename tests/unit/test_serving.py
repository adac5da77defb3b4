"""How a worker's process is set up before it serves."""

import gc
from collections.abc import Iterator

import pytest

from gateway.process import COLLECT_OBJECTS_MIN, spare_the_collector


@pytest.fixture
def collector() -> Iterator[None]:
    """The garbage collector as it was, after the test."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


class Ring:
    """An object that only the garbage collector frees."""

    freed = 0

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        Ring.freed += 1


@pytest.mark.usefixtures("collector")
def test_collector_that_is_spared_leaves_the_start_alone_and_still_frees_rings() -> None:
    spare_the_collector()
    assert gc.get_freeze_count() > 0
    for _ in range(COLLECT_OBJECTS_MIN + 10):
        Ring()
    assert Ring.freed > 0
