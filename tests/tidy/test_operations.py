"""The operators' page, the alert rules and the metrics that there are say the same."""

import re
from typing import Any

import pytest
import yaml
from prometheus_client.core import HistogramMetricFamily

from gateway.metrics import BUILD_INFO, TABLE, Distribution, Gauge, GaugeByWorker
from gateway.steward import metrics as steward
from tests.tidy.source import ROOT

PAGE = ROOT / "deploy" / "operations" / "metrics.md"
RULES = ROOT / "deploy" / "alerts" / "floodgate.yml"
FAULTS = ROOT / "deploy" / "operations" / "faults.md"
KNOWN = ROOT / "deploy" / "operations" / "known.md"
# Words of the page of faults that are no lines of a log: a field of one, and a table of PostgreSQL.
FIELDS_AND_TABLES = {"torn_bytes", "pg_stat_activity"}
GAUGES = (Gauge, GaugeByWorker, Distribution)
METRICS = {
    BUILD_INFO,
    *(kind.name if isinstance(kind, GAUGES) else f"{kind.name}_total" for kind in TABLE.values()),
    *(f"{named.name}_total" if named.is_counter else named.name for named in steward.TABLE),
}
BUCKETS = {f"{kind.name}_bucket" for kind in TABLE.values() if isinstance(kind, Distribution)}
SEVERITIES = {"critical", "warning"}


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load(RULES.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def section(title: str) -> str:
    """What stands on the page under a heading."""
    _, _, rest = PAGE.read_text().partition(f"\n### {title}\n")
    return re.split(r"\n##+ ", rest)[0]


def test_page_has_one_row_for_each_metric() -> None:
    rows = re.findall(r"^\| `(floodgate_[a-z_]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(METRICS)


def test_page_names_no_metric_that_there_is_not() -> None:
    assert set(re.findall(r"floodgate_[a-z_]+", PAGE.read_text())) - METRICS == set()


def test_page_has_a_section_for_each_alarm_and_no_other() -> None:
    titles = re.findall(r"^### (\w+)$", PAGE.read_text(), re.MULTILINE)
    assert titles == sorted(titles, key=[rule["alert"] for rule in rules()].index)
    assert len(titles) == len(rules())


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_page_says_of_an_alarm_what_it_means_and_what_to_do(rule: dict[str, Any]) -> None:
    text = section(rule["alert"])
    assert [mark for mark in ("**Means:**", "**Floodgate:**", "**Do:**") if mark not in text] == []


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_rule_names_metrics_that_there_are(rule: dict[str, Any]) -> None:
    named = set(re.findall(r"floodgate_[a-z_]+|\bup(?={)", rule["expr"]))
    assert named
    assert named - METRICS - BUCKETS - {"up"} == set()  # That one is Prometheus' own.


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_rule_has_what_an_alarm_needs(rule: dict[str, Any]) -> None:
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in SEVERITIES
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
    assert rule["annotations"].keys() == {"summary", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"deploy/operations/metrics.md#{rule['alert'].lower()}"
    assert rule["expr"].count("(") == rule["expr"].count(")")


def test_page_names_alarms_that_there_are() -> None:
    assert set(re.findall(r"\bFloodgate[A-Z]\w+", PAGE.read_text())) == {rule["alert"] for rule in rules()}


def test_histograms_are_named_as_the_library_names_them() -> None:
    family = HistogramMetricFamily("x", "", buckets=[("+Inf", 1)], sum_value=1)
    assert [sample.name for sample in family.samples] == ["x_bucket", "x_count", "x_sum"]


def test_page_of_faults_names_metrics_alarms_and_log_lines_that_there_are() -> None:
    text = FAULTS.read_text()
    alarms = {rule["alert"] for rule in rules()}
    said = "".join(path.read_text() for path in (ROOT / "gateway").rglob("*.py"))
    assert set(re.findall(r"floodgate_[a-z_]+", text)) - METRICS == set()
    assert set(re.findall(r"Floodgate[A-Z]\w+", text)) - alarms == set()
    lines = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", text)) - METRICS
    assert {line for line in lines if f'"{line}"' not in said} == FIELDS_AND_TABLES


def test_page_of_known_failures_names_tests_that_there_are() -> None:
    named = re.findall(r"`(tests/[a-z0-9_/]+\.py)::(test_\w+)`", KNOWN.read_text())
    assert named
    assert [(path, name) for path, name in named if f"def {name}(" not in (ROOT / path).read_text()] == []
