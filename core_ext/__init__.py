"""The compiled hot path and its readable Python twins: one block below picks which of them runs.

FLOODGATE_CORE is `compiled` (the default) or `reference`. A missing extension is an error and never a silent
fall-back: a gateway that runs at a tenth of its speed looks like an overload. Nothing here does I/O, reads a clock or
knows the rest of Floodgate.
"""

import os
from typing import TYPE_CHECKING

IMPLEMENTATION: str = os.environ.get("FLOODGATE_CORE", "compiled")

if TYPE_CHECKING or IMPLEMENTATION == "reference":
    from core_ext.reference import admission, documents, ids, pricing, rows, sealing, stock_table, validation
elif IMPLEMENTATION == "compiled":
    try:
        from core_ext.compiled import admission, documents, ids, pricing, rows, sealing, stock_table, validation
    except ImportError as error:
        raise ImportError(
            f"The compiled modules of core_ext cannot be loaded ({error}). Build them, which needs a C compiler: "
            "`python setup.py build_ext --inplace` or `pip install --editable .`; or run the slow Python twins: "
            "FLOODGATE_CORE=reference."
        ) from error
else:
    raise ImportError(f"FLOODGATE_CORE has to be `compiled` or `reference`, not {IMPLEMENTATION!r}")

__all__ = [
    "IMPLEMENTATION",
    "admission",
    "documents",
    "ids",
    "pricing",
    "rows",
    "sealing",
    "stock_table",
    "validation",
]
