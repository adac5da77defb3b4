"""Metrics: what was counted comes out in Prometheus' format, and nothing else does."""

from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import Counters, Exporter, Histogram


def samples(exporter: Exporter) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(exporter.text().decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_metrics_of_orders_are_what_was_counted() -> None:
    counters = Counters()
    counters.created(lines=2, units=7)
    counters.created(lines=1, units=1)
    found = samples(Exporter(counters, {}))
    assert found["floodgate_orders_created_total", ()] == 2
    assert found["floodgate_order_lines_created_total", ()] == 3
    assert found["floodgate_order_units_created_total", ()] == 8


def test_metrics_of_refusals_are_by_code() -> None:
    counters = Counters()
    counters.refused.update(["sold_out", "sold_out", "overloaded"])
    found = samples(Exporter(counters, {}))
    assert found["floodgate_orders_refused_total", (("code", "sold_out"),)] == 2
    assert found["floodgate_orders_refused_total", (("code", "overloaded"),)] == 1


def test_metrics_gauges_are_read_when_asked_for() -> None:
    waiting = [1.0]
    values = {
        "floodgate_queue_orders": ("Orders that wait", lambda: waiting[0]),
        "floodgate_lease_takes_total": ("Takes", lambda: 3.0),
    }
    exporter = Exporter(Counters(), values)
    assert b"# TYPE floodgate_lease_takes_total counter" in exporter.text()
    assert samples(exporter)["floodgate_queue_orders", ()] == 1
    waiting[0] = 5
    assert samples(exporter)["floodgate_queue_orders", ()] == 5


def test_metrics_histogram_counts_up_to_each_bound() -> None:
    counters = Counters()
    for orders in (1, 2, 3, 5000):
        counters.batch(orders, seconds=0.003)
    found = samples(Exporter(counters, {}))
    assert found["floodgate_batch_orders_bucket", (("le", "1"),)] == 1
    assert found["floodgate_batch_orders_bucket", (("le", "5"),)] == 3
    assert found["floodgate_batch_orders_bucket", (("le", "+Inf"),)] == 4
    assert found["floodgate_batch_orders_sum", ()] == 5006
    assert found["floodgate_commit_seconds_count", ()] == 4


def test_histogram_value_on_a_bound_belongs_to_it() -> None:
    histogram = Histogram((1, 2))
    histogram.observe(1)
    assert histogram.buckets() == [("1", 1), ("2", 1), ("+Inf", 1)]
