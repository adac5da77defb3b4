"""How much dearer one thing is than another, from runs made in pairs, with the interval in which the truth lies.

The mean is that of logarithms, since twice as dear and half as dear are the same distance from equal. The interval is
Student's, of 95 %; it says how well this machine could tell, and a wide one is no proof of anything.
"""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

PAIRS_MIN, PAIRS_MAX = 2, 31
# The 97.5 % quantile of Student's t for 1, 2, … degrees of freedom; tables in every textbook, here to three decimals.
# fmt: off
STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)
# fmt: on
assert len(STUDENT) == PAIRS_MAX - 1


class Interval(NamedTuple):
    mean: float
    low: float
    high: float


def interval(ratios: Sequence[float]) -> Interval:
    """The mean ratio and its 95 % interval; `ratios` are positive, PAIRS_MIN to PAIRS_MAX of them."""
    assert PAIRS_MIN <= len(ratios) <= PAIRS_MAX
    logarithms = [math.log(ratio) for ratio in ratios]
    middle = fmean(logarithms)
    reach = STUDENT[len(ratios) - 2] * stdev(logarithms) / math.sqrt(len(ratios))
    return Interval(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach))
