"""No call of the compiled modules keeps memory: not when it succeeds, and not when it fails half-way.

CPython counts its blocks; what is too large for one, and what libcrypto allocates, shows in the size of the process.
`make leaks` makes thirty times as many calls, millions in all.
"""

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core_ext.shapes import Priced, ShipTo
from tests.ext.pools import drop_pools
from tests.ext.twins import COMPILED, ORDER_ID, change, full_order, order, order_in, product

CALLS = int(os.environ.get("LEAK_CALLS", "10000"))
ROUNDS = 4  # the first of which warm up what is made once
SLACK_BLOCKS = 50  # a leak of one block a call would be CALLS
SLACK_BYTES = 4 << 20  # a leak of 512 bytes a call would be 5 MB, and many times that in the long form
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PRODUCTS = {"85123A": product(limit=9)}
SEALER = COMPILED.sealing.Sealer(bytes(32), 1)
LARGE = order_in(items=[{"sku": "85123A", "quantity": 1}] * 100, note="字" * 1000)
SPOILT = order(note="\ud800")


def price() -> Priced:
    made = COMPILED.pricing.price_order(LARGE, PRODUCTS, False)
    assert isinstance(made, Priced)
    return made


PRICED = price()


def write() -> Any:
    return COMPILED.admission.write(LARGE, PRICED, 7, "a", 10**12, 1000, None, SEALER)


WRITTEN = write()


def tell() -> None:
    COMPILED.admission.tell(LARGE, PRICED, WRITTEN, 7, "a", 10**12, None, "s", bytes(16), bytes(16), 2)


def seal_anew() -> None:
    COMPILED.sealing.Sealer(bytes(32), 1).seal(ORDER_ID, "字" * 1000, ShipTo(name="n"))


def reserve() -> None:
    till = COMPILED.stock_table.StockTable()
    till.add("A", ORDER_ID, 10)
    till.settle(till.try_reserve([("A", 3)]))
    till.restore(till.try_reserve([("A", 3)]))
    till.try_give("A", 5)


def fail_in_a_document() -> None:
    with pytest.raises(UnicodeEncodeError):
        COMPILED.documents.order_json(SPOILT, 2)


def fail_in_a_row() -> None:
    with pytest.raises(OverflowError):
        COMPILED.admission.write(LARGE, PRICED, 2**31, "a", 10**12, 1000, None, SEALER)


def fail_to_see() -> None:
    with pytest.raises(TypeError):
        COMPILED.rows.order_row(SEALER, None)


USES: list[Callable[[], Any]] = [
    price,
    write,
    tell,
    seal_anew,
    reserve,
    fail_in_a_document,
    fail_in_a_row,
    fail_to_see,
    lambda: COMPILED.validation.check_order(LARGE, False),
    lambda: COMPILED.ids.parse_id(COMPILED.ids.format_id(COMPILED.ids.new_id(0))),
    lambda: COMPILED.rows.order_row(full_order(), bytes(3000)),
    lambda: COMPILED.rows.history_row(ORDER_ID, change(changed=("a", "b"))),
    lambda: COMPILED.documents.event_json(full_order(), change(), "s"),
    lambda: COMPILED.documents.created_headers(7, full_order().lines, bytes(16), bytes(16)),
]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def used() -> tuple[int, int]:
    """Blocks of CPython, and bytes of the process."""
    drop_pools()
    gc.collect()
    return sys.getallocatedblocks(), resident_bytes()


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="a sanitizer keeps what is freed")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_calls_keep_no_memory(use: Callable[[], Any]) -> None:
    calls = CALLS // 20 if use in (price, write, tell, seal_anew, fail_in_a_row) else CALLS // 4
    for _ in range(ROUNDS // 2 * calls):
        use()
    blocks, size = used()
    for _ in range(ROUNDS // 2 * calls):
        use()
    blocks_now, size_now = used()
    assert blocks_now - blocks < SLACK_BLOCKS
    assert size_now - size < SLACK_BYTES
