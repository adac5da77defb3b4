"""Metrics: what was counted comes out in Prometheus' format, and nothing else does. Workers that share slots answer for
one another.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway import metrics
from gateway.footprint import Footprint
from gateway.metrics import LAYOUT, NUMBERS, Counters, Exporter
from gateway.slots import NUMBERS_MAX, Place, Slots, make_memory
from tests.unit.slots import shared_slots

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
# Counts without end, once it has said that it writes.
WRITER = """
import sys
import time
from gateway.metrics import Counters, Exporter
from gateway.slots import Place, Slots
counters = Counters()
exporter = Exporter(counters, Place(Slots.attach(int(sys.argv[1])), 0))
print("writing", flush=True)
while True:
    counters.created(lines=1, units=1)
    exporter.publish()
"""


def samples(exporter: Exporter) -> Samples:
    families = text_string_to_metric_families(exporter.text().decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


class Worker:
    """The counting half of a worker."""

    def __init__(self, shared: Slots, number: int) -> None:
        self.counters = Counters()
        self.slot = shared[number]
        self.exporter = Exporter(self.counters, Place(shared, number))

    def sell(self, orders: int) -> None:
        for _ in range(orders):
            self.counters.created(lines=1, units=1)
        self.exporter.publish()

    def seen(self, name: str, **labels: str) -> float:
        return samples(self.exporter)[name, tuple(sorted(labels.items()))]


def test_metrics_of_orders_are_what_was_counted() -> None:
    counters = Counters()
    counters.created(lines=2, units=7)
    counters.created(lines=1, units=1)
    found = samples(Exporter(counters))
    assert found["floodgate_orders_created_total", ()] == 2
    assert found["floodgate_order_lines_created_total", ()] == 3
    assert found["floodgate_order_units_created_total", ()] == 8


def test_metrics_of_refusals_are_by_code() -> None:
    counters = Counters()
    counters.refused.update(["sold_out", "sold_out", "overloaded"])
    found = samples(Exporter(counters))
    assert found["floodgate_orders_refused_total", (("code", "sold_out"),)] == 2
    assert found["floodgate_orders_refused_total", (("code", "overloaded"),)] == 1


def test_metrics_gauges_are_read_when_asked_for() -> None:
    waiting = [1.0]
    exporter = Exporter(Counters())
    exporter.attach({"queue_orders": lambda: waiting[0], "lease_takes": lambda: 3})
    assert b"# TYPE floodgate_lease_takes_total counter" in exporter.text()
    assert samples(exporter)["floodgate_queue_orders", ()] == 1
    waiting[0] = 5
    assert samples(exporter)["floodgate_queue_orders", ()] == 5


def test_metrics_histogram_counts_up_to_each_bound() -> None:
    counters = Counters()
    for orders in (1, 2, 3, 5000):
        counters.batch(orders, seconds=0.003)
    found = samples(Exporter(counters))
    assert found["floodgate_batch_orders_bucket", (("le", "1"),)] == 1
    assert found["floodgate_batch_orders_bucket", (("le", "5"),)] == 3
    assert found["floodgate_batch_orders_bucket", (("le", "+Inf"),)] == 4
    assert found["floodgate_batch_orders_sum", ()] == 5006
    assert found["floodgate_commit_seconds_count", ()] == 4


def test_metrics_histogram_value_on_a_bound_belongs_to_it() -> None:
    counters = Counters()
    counters.batch_orders.observe(2)
    found = samples(Exporter(counters))
    assert found["floodgate_batch_orders_bucket", (("le", "1"),)] == 0
    assert found["floodgate_batch_orders_bucket", (("le", "2"),)] == 1


def test_metrics_reader_of_what_is_not_in_the_table_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="not in the table"):
        Exporter(Counters()).attach({"no_such_metric": lambda: 1.0})


def test_metrics_of_two_workers_are_summed_whichever_is_asked() -> None:
    shared = shared_slots(2)
    one, other = Worker(shared, 0), Worker(shared, 1)
    one.counters.refused["sold_out"] += 2
    other.counters.refused["sold_out"] += 1
    for worker, orders in ((one, 2), (other, 3)):
        worker.counters.lease_refill_seconds.observe(0.003 * orders)
        worker.counters.queue_orders = orders
        worker.sell(orders)
    for asked in (one, other):
        assert asked.seen("floodgate_orders_created_total") == 5
        assert asked.seen("floodgate_orders_refused_total", code="sold_out") == 3
        assert asked.seen("floodgate_lease_refill_seconds_count") == 2
        assert asked.seen("floodgate_lease_refill_seconds_sum") == pytest.approx(0.015)
        assert asked.seen("floodgate_queue_orders") == 5


def test_metrics_whose_sum_says_nothing_are_shown_by_worker() -> None:
    shared = shared_slots(2)
    one, other = Worker(shared, 0), Worker(shared, 1)
    one.counters.clock_offset_seconds, other.counters.clock_offset_seconds = 0.5, -0.25
    other.exporter.publish()
    assert one.seen("floodgate_clock_offset_seconds", worker="0") == 0.5
    assert one.seen("floodgate_clock_offset_seconds", worker="1") == -0.25


def test_metrics_of_a_dead_worker_keep_its_counts_and_lose_its_gauges() -> None:
    shared = shared_slots(2)
    one, other = Worker(shared, 0), Worker(shared, 1)
    other.counters.queue_orders = 7
    other.sell(3)
    shared[1].release()
    assert one.seen("floodgate_orders_created_total") == 3
    assert one.seen("floodgate_queue_orders") == 0
    assert ("floodgate_ledger_up", (("worker", "1"),)) not in samples(one.exporter)


def test_metrics_of_a_successor_go_on_where_the_dead_worker_ended() -> None:
    shared = shared_slots(1)
    first = Worker(shared, 0)
    first.counters.queue_orders = 7
    first.counters.batch(orders=3, seconds=0.003)
    first.sell(3)
    shared[0].release()
    successor = Worker(shared, 0)
    assert successor.seen("floodgate_orders_created_total") == 3
    assert successor.seen("floodgate_batch_orders_sum") == 3
    assert successor.seen("floodgate_queue_orders") == 0
    successor.sell(2)
    assert successor.seen("floodgate_orders_created_total") == 5


def test_metrics_of_another_layout_are_neither_read_nor_carried_over(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = shared_slots(2)
    Worker(shared, 0).sell(3)
    Worker(shared, 1).sell(4)
    shared[0].release()
    monkeypatch.setattr(metrics, "LAYOUT", LAYOUT + 1)
    assert Worker(shared, 0).seen("floodgate_orders_created_total") == 0


def test_metrics_of_a_writer_that_crashes_are_what_it_last_wrote() -> None:
    memory = make_memory(2)
    shared = Slots.attach(memory)
    command = [sys.executable, "-c", WRITER, str(memory)]
    with subprocess.Popen(command, pass_fds=(memory,), stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        while not any(shared[0].read(LAYOUT, NUMBERS)):
            assert writer.poll() is None
        writer.send_signal(signal.SIGKILL)
    os.close(memory)
    assert shared[0].pid == writer.pid
    shared[0].release()
    survivor = Worker(shared, 1)
    orders = survivor.seen("floodgate_orders_created_total")
    assert orders >= 1
    assert orders == int(orders), "a number is written whole"
    successor = Worker(shared, 0)
    successor.sell(1)
    assert survivor.seen("floodgate_orders_created_total") == orders + 1


def test_slot_that_is_claimed_is_not_ready_before_its_holder_says_so() -> None:
    shared = shared_slots(1)
    worker = Worker(shared, 0)
    assert (shared[0].pid, shared[0].ready) == (os.getpid(), False)
    worker.slot.ready = True
    assert shared[0].ready
    shared[0].release()
    assert (shared[0].pid, shared[0].ready) == (0, False)


def test_metrics_published_are_a_sign_of_life_until_the_slot_is_released() -> None:
    shared = shared_slots(1)
    worker = Worker(shared, 0)
    assert shared[0].sign_at == 0
    before = time.monotonic()
    worker.exporter.publish()
    assert before <= shared[0].sign_at <= time.monotonic()
    shared[0].release()
    assert shared[0].sign_at == 0


def test_slot_sign_of_life_is_not_among_the_numbers() -> None:
    (slot,) = shared_slots(1)
    slot.claim(7, NUMBERS_MAX)
    slot.write([1.0] * NUMBERS_MAX)
    slot.sign_at = 5.0
    assert slot.read(7, NUMBERS_MAX) == [1.0] * NUMBERS_MAX


def test_metrics_of_workers_that_die_and_come_again_do_not_grow() -> None:
    shared = shared_slots(2)
    survivor = Worker(shared, 1)
    shapes = set()
    for _ in range(200):
        Worker(shared, 0).sell(1)
        shared[0].release()
        shapes.add((len(samples(survivor.exporter)), len(shared[0].read(LAYOUT, NUMBERS))))
    assert len(shapes) == 1
    assert survivor.seen("floodgate_orders_created_total") == 200


def test_metrics_of_answers_are_by_resource_and_class_of_status() -> None:
    counters = Counters()
    counters.requests.update([("orders", 2), ("orders", 2), ("stock", 4)])
    found = samples(Exporter(counters))
    assert found["floodgate_requests_total", (("resource", "orders"), ("status", "2xx"))] == 2
    assert found["floodgate_requests_total", (("resource", "stock"), ("status", "4xx"))] == 1
    assert found["floodgate_requests_total", (("resource", "sales"), ("status", "5xx"))] == 0


def test_metrics_say_what_runs() -> None:
    ((labels, value),) = [
        (dict(labels), value)
        for (name, labels), value in samples(Exporter(Counters())).items()
        if name == "floodgate_build_info"
    ]
    assert labels.keys() == {"version", "python", "core"}
    assert value == 1


def test_footprint_is_that_of_this_process() -> None:
    footprint = Footprint()
    with Path(os.devnull).open("rb"):
        more = Footprint()
    assert more.open_files == footprint.open_files + 1
    assert footprint.resident_bytes > 1 << 20
    assert 0 < footprint.started_s <= time.time()
