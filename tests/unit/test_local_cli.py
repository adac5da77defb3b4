"""`up`, `down` and `status` where nothing runs, and mistakes that end `up` before it starts anything."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from deploy.local.accounts import PUBLIC_NAME
from deploy.local.folder import DataFolder
from gateway.cli.up import down, status, up


def call(command: object, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)  # type: ignore[arg-type]


def test_down_where_nothing_runs_succeeds(tmp_path: Path) -> None:
    result = call(down, "--data", str(tmp_path / "data"))
    assert result.exit_code == 0
    assert "Nothing runs" in result.output
    assert not (tmp_path / "data").exists()


def test_status_where_nothing_runs_fails(tmp_path: Path) -> None:
    result = call(status, "--data", str(tmp_path))
    assert result.exit_code == 1
    assert "`floodgate up` starts it" in result.output


def test_status_json_where_nothing_runs_is_complete(tmp_path: Path) -> None:
    result = call(status, "--json", "--data", str(tmp_path))
    assert result.exit_code == 1
    report = json.loads(result.output)
    assert set(report) == {"http", "postgres", "redis", "nats", "token", "pids", "ready", "data"}
    assert not report["ready"]
    assert report["pids"] == {}


def test_status_on_a_folder_with_roots_public_one_names_the_way_to_start(tmp_path: Path) -> None:
    (tmp_path / PUBLIC_NAME).mkdir()
    assert "`floodgate up` starts it" in call(status, "--data", str(tmp_path)).output


def test_status_ignores_the_record_of_a_killed_system(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.claim()
    folder.write_run({"http": "http://127.0.0.1:1", "pids": {"up": 1}, "started": True})
    assert call(status, "--data", str(folder.path)).exit_code == 1


def test_up_on_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = call(up, "--fresh", "--data", str(tmp_path))
    assert result.exit_code == 1
    assert "not a data folder of Floodgate" in result.output


def test_up_with_an_unknown_setting_exits_2_and_names_the_nearest(tmp_path: Path) -> None:
    config = tmp_path / "floodgate.toml"
    config.write_text("[stock]\nshard = 4\n")
    result = call(up, "--config", str(config), "--data", str(tmp_path / "data"))
    assert result.exit_code == 2
    assert "stock.shards" in result.output
