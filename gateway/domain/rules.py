"""Rules by SKU, or by the name of a client: the first whose pattern matches counts.

A change of them is worked through for every SKU of the catalogue, so a pattern is tried only on SKUs that begin and end
as it does, and hold its longest text: a thousand rules such as `SALE-17-*` or `*-A17` cost little more than one.
"""

import fnmatch
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gateway.domain.stock_keys import sku_of

# What stands between the texts that a SKU has to hold. Of sets, everything from the first to the last.
_WILD = re.compile(r"\[.*\]|[*?\[]", re.DOTALL)


class _Rule(NamedTuple):
    at: int
    text: str
    match: Callable[[str], object]


class Rules:
    """Pattern and value of each rule, in order. Patterns are those of `fnmatch.fnmatchcase`."""

    def __init__(self, rules: Sequence[tuple[str, int]]) -> None:
        self._values = [value for _, value in rules]
        # By beginning, then by the ending's length, then by ending.
        self._by_beginning: dict[str, dict[int, dict[str, list[_Rule]]]] = {}
        for at, (pattern, _) in enumerate(rules):
            beginning, *rest = texts = _WILD.split(pattern)
            ending = rest[-1] if rest else ""
            by_ending = self._by_beginning.setdefault(beginning, {}).setdefault(len(ending), {})
            match = re.compile(fnmatch.translate(pattern)).match
            by_ending.setdefault(ending, []).append(_Rule(at, max(texts, key=len), match))
        self._lengths = sorted({len(beginning) for beginning in self._by_beginning})

    def find(self, key: str) -> int | None:
        """The value of the first rule for a SKU, or for a sale's stock of it, which goes by the SKU alone."""
        sku = sku_of(key)
        first = len(self._values)
        for length in self._lengths:
            for ending_length, by_ending in self._by_beginning.get(sku[:length], {}).items():
                for at, text, match in by_ending.get(sku[len(sku) - ending_length :], ()):
                    if at < first and text in sku and match(sku):
                        first = at
        return self._values[first] if first < len(self._values) else None
