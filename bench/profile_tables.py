"""What `python -m bench.profile` prints: a worker's time by thread and by library, and instructions by function."""

from collections import Counter
from collections.abc import Sequence

from bench import threads
from bench.instructions import Counted
from bench.threads import Place
from bench.worker import PERF_HZ, SAMPLES_HZ, Loaded

THREAD_US_MIN = 0.05  # of an order: a thread below is left out
SHARE_MIN = 0.005  # of all samples: a library below is left out


def by_thread(alone: Loaded, pid: int, taken: Counter[Place]) -> str:
    """A line for each thread that does anything; without samples only the event loop has a name."""
    busy = {thread: us for thread in alone.cpu_s if (us := alone.us_per_order(thread)) >= THREAD_US_MIN}
    lines = [f"{us:10.1f} {us / alone.us:6.1%}  {threads.role_of(thread, pid, taken)}" for thread, us in busy.items()]
    head = f"By thread, nobody looking on: {alone.rate:,.0f} orders/s, {alone.us:.1f} us of CPU per order"
    return "\n".join([head, "  us/order  share  thread", *lines])


def by_library(loaded: Loaded, pid: int, taken: Counter[Place]) -> str:
    """A line for each library, a column for each thread."""
    seen = [thread for thread in loaded.cpu_s if any(place.thread == thread for place in taken)]
    roles = [threads.role_of(thread, pid, taken) for thread in seen]
    shares = [threads.by_library(taken), *(threads.by_library(taken, thread) for thread in seen)]
    heads = ["     all", *roles]
    lines = [
        f"{_cells(heads, [column.get(library, 0.0) * loaded.us for column in shares])}  {library}"
        for library, share in shares[0].items()
        if share >= SHARE_MIN
    ]
    title = f"By library, us per order, {taken.total():,} samples of perf at {PERF_HZ} Hz"
    return "\n".join([f"{title}; {loaded.rate:,.0f} orders/s meanwhile", "  ".join([*heads, "library"]), *lines])


def of_flames(flames: Loaded, alone: Loaded, picture: str) -> str:
    """Where the flame graph is, and what it has cost the worker."""
    return (
        f"{picture}: a flame graph of the time in which a thread holds the GIL, with native frames, by py-spy at"
        f" {SAMPLES_HZ} Hz, which stops the worker for each sample; {flames.rate:,.0f} orders/s meanwhile"
        f" ({flames.rate / alone.rate - 1:+.0%})"
    )


def by_function(counted: Counted) -> str:
    """Instructions of one order, and the functions that take most of them."""
    lines = [f"{count:10,.0f} {count / counted.instructions:6.1%}  {name}" for name, count in counted.functions.items()]
    return "\n".join([f"{counted.name}: {counted.instructions:,.0f} instructions an order, by callgrind", *lines])


def _cells(heads: Sequence[str], values: Sequence[float]) -> str:
    """Numbers below their heads; nothing for what rounds to nothing."""
    return "  ".join(
        (f"{value:.1f}" if value >= THREAD_US_MIN else "").rjust(len(head))
        for head, value in zip(heads, values, strict=True)
    )
