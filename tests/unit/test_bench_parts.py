"""The parts of a bench that touch the machine: orders for wrk, what it prints, CPU by role, what servers run with."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench import environment, usage, workload, wrk
from bench.failure import ScenarioError
from bench.system import parse_metrics, uninterrupted
from core_ext.shapes import OrderIn

SAID = b"Running 1s test\nHTTP 201: 120\nHTTP 503: 3\nseconds 1.5 p50_ms 2.25 p99_ms 9.5 unanswered 4\n"


def test_order_is_the_canonical_one_with_personal_data() -> None:
    order = msgspec.json.decode(workload.body(), type=OrderIn)
    assert order.note is not None
    assert len(order.note) == 20
    assert order.ship_to is not None
    assert order.customer_id
    assert [(item.sku, item.quantity) for item in order.items] == [(workload.SKU, 1)]


def test_script_of_wrk_sends_the_same_bytes_as_the_workload() -> None:
    head, _, tail = workload.body().decode().partition(f'{{"sku":"{workload.SKU}","quantity":1}}')
    text = wrk.ORDER.read_text()
    assert f"'{head}'" in text
    before, customer, after = tail.partition("u-00000000")
    written = text[text.index("local tail = ") : text.index("\nlocal body")]
    literals = "".join(part for at, part in enumerate(written.split("'")) if at % 2)
    assert customer
    assert literals == before + after


def test_catalogue_is_named_as_the_script_names_it() -> None:
    skus = [goods.sku for goods in workload.catalogue()]
    assert len(set(skus)) == workload.CATALOGUE_SKUS
    assert skus[0] == f"{workload.CATALOGUE_PREFIX}0001"
    assert "%s%04d" in wrk.ORDER.read_text()


def test_load_is_read_from_what_the_script_prints() -> None:
    load = wrk.read_load(SAID, ["a", "b"], 7.0, 0.5)
    assert load.answers == {"201": 120, "503": 3}
    assert (load.seconds, load.p50_ms, load.p99_ms, load.unanswered) == (1.5, 2.25, 9.5, 4)
    assert (load.ids, load.stopped_at, load.cpu_s) == (["a", "b"], 7.0, 0.5)


def test_load_without_a_summary_is_an_error() -> None:
    with pytest.raises(ScenarioError, match="unexpected"):
        wrk.read_load(b"unable to connect to 127.0.0.1:1", [], 0.0, 0.0)


def test_wrk_that_is_missing_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ScenarioError, match="apt-get install wrk"):
        wrk.program()


def test_usage_counts_children_and_those_that_have_ended() -> None:
    burn = "import time\nwhile time.process_time() < 0.15: pass"
    child = (
        f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {burn!r}]); print(flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        found = usage.read({"worker": process.pid})["worker"]
        assert process.stdin
        process.stdin.write(b"\n")
    assert found >= 0.14


def test_usage_of_a_process_that_has_ended_is_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert usage.read({"worker": process.pid}) == {"worker": 0.0}


def test_usage_spent_is_shared_by_orders() -> None:
    assert usage.spent({"worker": 1.0}, {"worker": 1.5}, 1000) == {"worker": pytest.approx(500.0)}
    assert usage.spent({"worker": 1.0}, {"worker": 1.5}, 0) == {}


def test_children_are_those_of_the_process() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert process.pid in usage.children_of(os.getpid())
    finally:
        process.communicate(b"\n")
    assert process.pid not in usage.children_of(os.getpid())


def test_metrics_are_read_by_name_and_labels() -> None:
    text = '# HELP floodgate_orders x\nfloodgate_events_backlog 12.0\nfloodgate_ledger_up{worker="1"} 1.0\nother 3\n'
    assert parse_metrics(text) == {"floodgate_events_backlog": 12.0, 'floodgate_ledger_up{worker="1"}': 1.0}


@pytest.mark.parametrize(
    ("said", "found"), [("jetstream { sync_interval: always }", "always"), ("jetstream {}", "2m, its default")]
)
def test_sync_interval_is_that_of_the_running_process(tmp_path: Path, said: str, found: str) -> None:
    config = tmp_path / "nats.conf"
    config.write_text(said)
    command = [sys.executable, "-c", "print(flush=True); input()", "--config", str(config)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert environment.sync_interval(process.pid) == found
        process.communicate(b"\n")


def test_settings_with_secrets_are_not_recorded() -> None:
    shown = ["FLOODGATE_BATCH__ROWS_MAX", "FLOODGATE_CORE"]
    hidden = ["FLOODGATE_SECRETS__HASH_KEY", "FLOODGATE_POSTGRES__URL", "FLOODGATE_TOKEN_FILE", "HOME"]
    assert [name for name in shown + hidden if environment.SETTING.match(name)] == shown


def test_what_must_be_whole_is_ended_by_an_interrupt_only_after_it() -> None:
    done = []

    def interrupted() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("whole")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == ["whole"]
