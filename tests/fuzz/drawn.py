"""The engine that needs nothing but hypothesis: inputs drawn from a target's strategy, in rounds that a seed decides.

It promises that a failing input is made as small as hypothesis can make it before it is told of, unless it was one of
several at once; and that rounds forget what they have seen: an hour of them needs no more memory than a minute.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.progress import Progress
from tests.fuzz.target import FindingError, Target

ROUND_EXAMPLES = 500
ROUNDS_MAX = 1_000_000  # of a seed


def run(target: Target[Any], progress: Progress, number: int) -> list[Any]:
    """Try inputs until `progress` has as many as it is to have. The inputs that fail, the first kind found, as small as
    they could be made; none when all is in order.
    """
    for turn in range(ROUNDS_MAX):
        if progress.is_over:
            break
        if failing := _round(target, progress, number * ROUNDS_MAX + turn):
            return failing
    return []


def _round(target: Target[Any], progress: Progress, number: int) -> list[Any]:
    left = -(-(progress.count - progress.tally.inputs) // target.batch)
    failing: list[Any] = []

    @seed(number)
    @settings(
        max_examples=min(ROUND_EXAMPLES, left),
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink) if target.batch == 1 else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(st.lists(target.inputs(), min_size=target.batch, max_size=target.batch))
    def example(batch: list[Any]) -> None:
        try:
            try_batch(target, progress, batch)
        except Exception as error:
            culprit = getattr(error, "culprit", None)
            failing[:] = [batch if culprit is None else [culprit], error]
            raise

    try:
        example()
    except Exception:  # Of the target, or that of hypothesis that the target does not fail again.
        if not failing:
            raise
        tell(progress, failing[1])
        return list(failing[0])
    return []


def try_batch(target: Target[Any], progress: Progress, batch: Sequence[Any]) -> None:
    """Try inputs together, and keep them where a crash does not take them along. Raises what `check` does."""
    progress.begin(msgspec.msgpack.encode(batch))
    progress.done(target.check(batch))


def tell(progress: Progress, error: Exception) -> None:
    """Keep what was found."""
    if isinstance(error, FindingError):
        progress.fail(str(error), error.kind)
    else:
        progress.fail(f"{type(error).__name__}: {error}", "wrong")
