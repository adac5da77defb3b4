"""What the command line says when something is wrong: what happened, why, and what to do; never a traceback."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploy.local.folder import DataFolder
from deploy.local.stack import COMMAND
from gateway.cli import main
from gateway.cli.up import up

NOWHERE = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of this machine, and a data folder on which nothing runs."""
    for name in [name for name in os.environ if name.startswith("FLOODGATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FLOODGATE_DATA", str(tmp_path / "data"))


def call(*arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(main, arguments, prog_name="floodgate")


def assert_told(result: Result, *words: str, status: int = 1) -> None:
    """It ends with a message, not with an exception of ours."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.output, result.output


def wrong(url: str) -> str:
    """The same address with another password."""
    head, _, tail = url.rpartition("@")
    return f"{head}x@{tail}"


OF_THE_LEDGER = [["audit"], ["config", "history"], ["client", "list"], ["migrate"], ["recover", "--dry-run"]]


@pytest.mark.parametrize("command", OF_THE_LEDGER, ids=" ".join)
def test_ledger_that_is_away_is_told_with_what_to_do(command: list[str]) -> None:
    servers = {"FLOODGATE_POSTGRES__URL": f"postgresql://a@{NOWHERE}/b", "FLOODGATE_NATS__URL": f"nats://{NOWHERE}"}
    assert_told(call(*command, **servers), "PostgreSQL cannot be reached", "postgres.url", "floodgate doctor")


@pytest.mark.parametrize("command", OF_THE_LEDGER, ids=" ".join)
def test_ledger_that_refuses_the_password_is_told_with_what_to_do(command: list[str], postgres_url: str) -> None:
    servers = {"FLOODGATE_POSTGRES__URL": wrong(postgres_url), "FLOODGATE_NATS__URL": f"nats://{NOWHERE}"}
    assert_told(call(*command, **servers), "password authentication failed", "mend postgres.url")


def test_ledger_without_the_database_is_told_with_what_to_do(postgres_url: str) -> None:
    url = f"{postgres_url.rpartition('/')[0]}/nowhere"
    assert_told(call("audit", FLOODGATE_POSTGRES__URL=url), 'database "nowhere" does not exist', "mend postgres.url")


def test_stream_that_is_away_is_told_once_with_what_to_do() -> None:
    result = call("events", FLOODGATE_NATS__URL=f"nats://{NOWHERE}")
    assert_told(result, "NATS cannot be reached", "nats.url", "floodgate doctor")
    assert result.output.count("nats_error") <= 1


@pytest.mark.parametrize(
    "command", [["audit"], ["events"], ["stock", "show", "A"], ["sale", "list"], ["config", "history"]], ids=" ".join
)
def test_no_system_that_runs_is_told_with_what_to_do(command: list[str]) -> None:
    assert_told(call(*command), "nothing runs on", "floodgate up", "--data")


@pytest.mark.parametrize("command", ["status", "up", "audit"])
def test_data_folder_that_can_be_none_is_told(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = call(command, "--data", str(tmp_path / "file" / "x"))
    assert_told(result, str(tmp_path / "file" / "x"), "Not a directory")


def test_data_folder_of_somebody_else_is_told_by_status(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert_told(call("status", "--data", str(tmp_path)), "not a data folder of Floodgate", "--data")


@pytest.mark.parametrize("command", [["up"], ["audit"], ["serve"], ["config", "show"], ["migrate"]], ids=" ".join)
def test_settings_that_are_broken_are_told_by_every_command(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "floodgate.toml").write_text("[http]\nport = 'eighty'\n")
    result = call(*command, "--config", str(tmp_path / "floodgate.toml"))
    assert_told(result, 'http.port has to be a whole number from 0 to 65535, not "eighty"', "line 2", status=2)


def test_settings_that_are_no_toml_are_told_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "floodgate.toml").write_text("[http\n")
    result = call("audit", FLOODGATE_CONFIG=str(tmp_path / "floodgate.toml"))
    assert_told(result, "floodgate.toml is not TOML", "line 1", status=2)


def test_port_that_is_taken_is_told_with_another_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = call("up", "--port", str(port))
    assert_told(result, f"port {port} is in use (pid {os.getpid()}", "floodgate up --port")


def test_gateway_that_is_away_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.cli.stock.SHORT_WAIT_S", 0.1)
    (tmp_path / "token").write_text("fg_x")
    result = call("stock", "show", "A", "--url", f"http://{NOWHERE}", "--token-file", str(tmp_path / "token"))
    assert_told(result, "gave no final answer", "Cannot connect", "floodgate status")


def test_up_detached_over_a_running_system_leaves_its_log_alone(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.claim()
    log = folder.logs / "up.log"
    log.write_text("of the running one\n")
    with folder.locked():
        result = CliRunner().invoke(up, ["--detach", "--data", str(folder.path)])
    assert_told(result, f"already runs on {folder.path} (pid {os.getpid()})", "floodgate status")
    assert log.read_text() == "of the running one\n"


def test_modules_that_are_not_built_are_told_with_what_to_do() -> None:
    environment = os.environ | {"FLOODGATE_CORE": "nonsense"}
    done = subprocess.run([*COMMAND, "serve", "--help"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    done = subprocess.run([*COMMAND, "config", "show"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "FLOODGATE_CORE has to be" in done.stderr
    assert "floodgate doctor" in done.stderr


# A command that writes for ever, into a pipe that is closed or until it is interrupted.
ENDLESS = """
import asyncio, sys, click
from gateway.cli import address, main
async def write():
    while True:
        click.echo("x" * 4096)
        await asyncio.sleep(0)
@click.command()
def endless():
    address.run(write())
main.get_command = lambda ctx, name: endless
main(["status"], prog_name="floodgate")
"""


def endless() -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline()
    return process


def test_pipe_that_is_closed_ends_a_command_without_a_word() -> None:
    process = endless()
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.wait() != 0
    assert process.stderr.read() == b""
    process.stderr.close()


def test_interrupted_command_ends_without_a_traceback() -> None:
    with endless() as process:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 1
    assert said.decode().strip() == "Aborted!"
