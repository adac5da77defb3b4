"""`floodgate bench` with the scenarios that need more than wrk, end to end: what they say of orders, events and
look-ups. How fast any of it was is nobody's business here.
"""

import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from bench.record import Record, Result
from bench.scenarios.overload import TIMES
from deploy.local.stack import COMMAND
from tests.tools import needs_wrk

pytestmark = [
    needs_wrk,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="overload needs two cores"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """One run of each. Its exit status says nothing here: on a busy machine the generator may fall behind."""
    path: Path = tmp_path_factory.mktemp("bench") / "record.json"
    options = ["--runs", "1", "--seconds", "1", "--workers", "1", "--connections", "16", "--overload-seconds", "1"]
    names = ["status", "overload", "lag"]
    command = [*COMMAND, "bench", *names, *options, "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert path.exists(), done.stdout + done.stderr
    return msgspec.json.decode(path.read_bytes(), type=Record)


def result(record: Record, scenario: str) -> Result:
    (found,) = [one for one in record.scenarios.values() if one.scenario == scenario]
    return found


@pytest.mark.parametrize("scenario", ["overload", "lag"])
def test_open_loop_accounts_for_every_order(record: Record, scenario: str) -> None:
    (run,) = result(record, scenario).runs
    assert sum(run.answers.values()) == round(run.figures["offered_per_s"] * run.seconds)
    assert run.verified is not None
    assert run.verified.acknowledged == run.answers["accepted"] > 0
    assert run.verified.faults() == []


def test_overload_offers_three_times_what_it_has_seen_the_gateway_take(record: Record) -> None:
    (run,) = result(record, "overload").runs
    assert run.figures["offered_per_s"] == pytest.approx(TIMES * run.figures["peak_per_s"], abs=1)
    assert run.figures["goodput_share"] == pytest.approx(run.value / run.figures["peak_per_s"])


def test_lag_has_seen_every_event_after_its_order_was_decided(record: Record) -> None:
    (run,) = result(record, "lag").runs
    assert [fault for fault in run.faults if "events" in fault] == []
    assert run.value >= run.figures["lag_p50_ms"] > 0


def test_status_shows_orders_and_asks_once_a_second_for_unknown_ones(record: Record) -> None:
    (run,) = result(record, "status").runs
    assert run.answers.keys() == {"200"}
    assert run.faults == []
    assert run.figures["unknown_per_s"] > run.figures["unknown_asked_per_s"] * 100
    assert run.figures["unknown_asked_per_s"] > 0
