"""A steward's metrics: how its jobs fare, shown to whoever reaches the page."""

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.steward.metrics import OWNERS, TABLE, StewardMetrics, shown
from persistence.errors import LedgerUnavailableError


def samples(text: str) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(text)
    return {(s.name, s.labels.get("task", "")): s.value for family in families for s in family.samples}


def seen(metrics: StewardMetrics) -> dict[tuple[str, str], float]:
    return samples(metrics.text().decode())


def test_steward_metrics_count_a_pass_that_came_to_its_end() -> None:
    metrics = StewardMetrics()
    for _ in range(3):
        with metrics.job("relay"):
            pass
    assert seen(metrics)["floodgate_steward_jobs_total", "relay"] == 3
    assert seen(metrics)["floodgate_steward_job_failures_total", "relay"] == 0


def test_steward_metrics_count_a_pass_that_failed_and_hide_nothing() -> None:
    metrics = StewardMetrics()
    with pytest.raises(LedgerUnavailableError), metrics.job("relay"):
        raise LedgerUnavailableError("away")
    assert seen(metrics)["floodgate_steward_job_failures_total", "relay"] == 1
    assert ("floodgate_steward_jobs_total", "relay") not in seen(metrics)


def test_steward_metrics_age_of_a_job_that_never_succeeds_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("gateway.steward.metrics.time.monotonic", lambda: now)
    metrics = StewardMetrics()
    with metrics.job("bury"):
        pass
    for now in (130.0, 160.0):  # noqa: B007 - the clock reads it
        with pytest.raises(LedgerUnavailableError), metrics.job("bury"):
            raise LedgerUnavailableError("away")
    assert seen(metrics)["floodgate_steward_job_age_seconds", "bury"] == 60.0


def test_steward_metrics_show_nothing_of_the_ledger_before_it_was_asked() -> None:
    assert ("floodgate_outbox_batches", "") not in seen(StewardMetrics())


async def test_steward_metrics_are_shown_on_a_port_of_their_own() -> None:
    metrics = StewardMetrics()
    metrics.counts[OWNERS] += 2
    async with shown(metrics, "127.0.0.1", 0) as port, aiohttp.ClientSession() as client:
        async with client.get(f"http://127.0.0.1:{port}/metrics") as answer:
            found = samples(await answer.text())
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        async with client.get(f"http://127.0.0.1:{port}/") as answer:
            assert answer.status == 404
    assert found["floodgate_owners_closed_total", ""] == 2


def test_steward_metrics_have_a_name_once() -> None:
    assert len({named.name for named in TABLE}) == len(TABLE)
