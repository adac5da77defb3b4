"""What `python -m bench.profile` makes of /proc, perf, py-spy and callgrind."""

import os
import threading
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import instructions, profile, profile_tables, threads
from bench.failure import ScenarioError
from bench.instructions import Counted
from bench.threads import Place
from bench.worker import Loaded

LOOP, HTTP, PYTHON = 100, 101, 102
SCRIPT = """\
  100      7f1e635716c2 (/srv/core_ext/compiled/documents.cpython-311-x86_64-linux-gnu.so)
  100      7f1e6700298c (/usr/lib/libpython3.11.so.1.0)
  100      7f1e6700298c (/usr/lib/python3.11/lib-dynload/_blake2.cpython-311-x86_64-linux-gnu.so)
  101  ffffffff81000000 ([kernel.kallsyms])
  101      7f1e60000000 (/venv/granian/_granian.cpython-311-x86_64-linux-gnu.so)
  102      7f1e6700298c (/usr/lib/libpython3.11.so.1.0)
  102      7f1e67002990 (/venv/lib/strange.so.1)
"""
BEFORE = """\
Ir
--------------------------------------------------------------------------------
1,000,000 (100.0%)  PROGRAM TOTALS

Ir                 file:function
--------------------------------------------------------------------------------
600,000 (60.00%)  ???:_PyEval_EvalFrameDefault [/usr/lib/libpython3.11.so.1.0]
300,000 (30.00%)  ???:0x0000000000001234 [/usr/lib/libcrypto.so.3]
 50,000 ( 5.00%)  ./string.h:0x0000000000001234
 50,000 ( 5.00%)  ???:0x0000000000001234'2 [/usr/lib/libcrypto.so.3]
"""
AFTER = """\
31,000,000 (100.0%)  PROGRAM TOTALS
10,600,000 (34.2%)  ???:_PyEval_EvalFrameDefault [/usr/lib/libpython3.11.so.1.0]
20,000,000 (64.5%)  ./rows.c:order_row [/srv/core_ext/compiled/rows.so]
   400,000 ( 1.3%)  ???:0x0000000000001234 [/usr/lib/libcrypto.so.3]
"""


@pytest.fixture
def taken() -> Counter[Place]:
    return threads.samples(SCRIPT)


def loaded(**cpu_s: float) -> Loaded:
    names = {"loop": LOOP, "http": HTTP, "python": PYTHON}
    return Loaded(1000, 2.0, {names[name]: seconds for name, seconds in cpu_s.items()})


def test_samples_are_counted_by_thread_and_by_what_a_library_is_called(taken: Counter[Place]) -> None:
    assert taken == Counter(
        {
            Place(LOOP, "core_ext"): 1,
            Place(LOOP, "CPython"): 2,
            Place(HTTP, "kernel"): 1,
            Place(HTTP, "Granian (Rust)"): 1,
            Place(PYTHON, "CPython"): 1,
            Place(PYTHON, "strange"): 1,
        }
    )


def test_shares_of_a_thread_are_shares_of_all_samples(taken: Counter[Place]) -> None:
    assert threads.by_library(taken, HTTP) == {"kernel": 1 / 7, "Granian (Rust)": 1 / 7}
    assert sum(threads.by_library(taken).values()) == pytest.approx(1)
    assert next(iter(threads.by_library(taken))) == "CPython"


def test_roles_of_threads_are_told_by_whether_they_run_python(taken: Counter[Place]) -> None:
    assert threads.role_of(LOOP, LOOP, taken) == "event loop"
    assert threads.role_of(HTTP, LOOP, taken) == "Granian, HTTP"
    assert threads.role_of(PYTHON, LOOP, taken) == "Granian, beside the loop"
    assert threads.role_of(HTTP, LOOP, Counter()) == "another thread"


def test_time_is_read_of_every_thread_of_a_process() -> None:
    leaving = threading.Event()
    thread = threading.Thread(target=leaving.wait)
    thread.start()
    try:
        found = threads.read(os.getpid())
        assert {os.getpid(), thread.native_id} <= found.keys()
        assert all(seconds >= 0 for seconds in found.values())
    finally:
        leaving.set()
        thread.join()


def test_time_spent_is_what_was_added_and_the_busiest_comes_first() -> None:
    assert list(threads.spent({1: 5.0, 2: 1.0, 3: 1.0}, {1: 6.0, 2: 4.0, 4: 0.5}).items()) == [
        (2, 3.0),
        (1, 1.0),
        (4, 0.5),
    ]


def test_table_of_threads_shows_microseconds_of_an_order(taken: Counter[Place]) -> None:
    text = profile_tables.by_thread(loaded(loop=0.030, http=0.010, python=0.0), LOOP, taken)
    assert "500 orders/s, 40.0 us of CPU per order" in text
    assert [line.split(maxsplit=2) for line in text.splitlines()[2:]] == [
        ["30.0", "75.0%", "event loop"],
        ["10.0", "25.0%", "Granian, HTTP"],
    ]


def test_table_of_libraries_shares_the_worker_s_time_among_them(taken: Counter[Place]) -> None:
    text = profile_tables.by_library(loaded(loop=0.030, http=0.020, python=0.020), LOOP, taken)
    (python,) = [line for line in text.splitlines() if line.endswith("CPython")]
    assert python.split() == ["30.0", "20.0", "10.0", "CPython"]
    assert "7 samples" in text


def test_flame_graph_says_what_it_has_cost() -> None:
    text = profile_tables.of_flames(loaded(loop=1.0)._replace(orders=750), loaded(loop=1.0), "worker.svg")
    assert "worker.svg" in text
    assert "(-25%)" in text


def test_functions_are_counted_by_name_and_library() -> None:
    assert instructions.functions(BEFORE) == {
        "_PyEval_EvalFrameDefault [libpython3.11.so.1.0]": 600_000,
        "0x0000000000001234 [libcrypto.so.3]": 400_000,
    }


def test_instructions_of_an_order_are_the_difference_of_two_runs() -> None:
    assert instructions.difference(BEFORE, AFTER) == {
        "order_row [rows.so]": 20_000_000 / instructions.ORDERS,
        "_PyEval_EvalFrameDefault [libpython3.11.so.1.0]": 10_000_000 / instructions.ORDERS,
    }


def test_table_of_functions_names_the_total() -> None:
    text = profile_tables.by_function(Counted("core", 4000.0, {"order_row [rows.so]": 1000.0}))
    assert text.splitlines()[0].startswith("core: 4,000 instructions an order")
    assert text.splitlines()[1].split() == ["1,000", "25.0%", "order_row", "[rows.so]"]


def test_instructions_without_valgrind_name_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ScenarioError, match="apt-get install valgrind"):
        instructions.count("core", tmp_path)


def test_profile_keeps_what_it_found_before_it_could_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found_until(*_: object) -> object:
        yield "the first part"
        raise ScenarioError("no flame graph: permission denied")

    monkeypatch.setattr(profile, "_parts", found_until)
    done = CliRunner().invoke(profile.main, ["--out", str(tmp_path / "new")])
    assert done.exit_code == 1
    assert "permission denied" in done.output
    assert (tmp_path / "new" / "profile.txt").read_text() == "the first part\n\nno flame graph: permission denied\n"
