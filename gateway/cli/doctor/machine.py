"""What Floodgate needs of the machine: a compiler and the compiled modules, a port, open files, memory, and settings of
the kernel. Every check is given what it looks at; nothing is changed.
"""

import importlib
import resource
import shutil
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deploy.local.ports import refusal
from gateway.cli.doctor.report import Check, fault, ok, warning

COMPILERS = ("cc", "gcc", "clang")
COMPILER_REMEDY = (
    "Install them: apt-get install gcc python3-dev (Debian, Ubuntu), dnf install gcc python3-devel (Fedora)."
)
# Of a worker, beside the connections of its clients: servers, files, and some to spare.
FILES_BESIDE = 256
FILES_MIN = 1024
BACKLOG = 4096  # what a worker asks for; the kernel gives no more than somaxconn
MIB = 1 << 20
WORKER_BYTES = 150 * MIB
BESIDE_BYTES = 600 * MIB  # of the servers, the steward and the projector
SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
MIGRATE = Path("/proc/sys/net/ipv4/tcp_migrate_req")
CLOCK_SOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
SLOW_SOURCES = {"hpet", "acpi_pm", "jiffies"}
MEMORY = Path("/proc/meminfo")
CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")


def compiler(find: Callable[[str], str | None] = shutil.which) -> Check:
    found = next((path for name in COMPILERS if (path := find(name))), None)
    if found is None:
        return warning("compiler", "there is none, and the fast modules cannot be built here", COMPILER_REMEDY)
    return ok("compiler", found)


def headers(folder: Path | None = None) -> Check:
    header = (folder or Path(sysconfig.get_path("include"))) / "Python.h"
    if not header.exists():
        return warning("headers", f"{header} is missing: the fast modules cannot be built here", COMPILER_REMEDY)
    return ok("headers", str(header))


def modules(load: Callable[[str], Any] = importlib.import_module) -> Check:
    """Which of the twins run: the compiled modules or their Python counterparts."""
    try:
        implementation = load("core_ext").IMPLEMENTATION
    except ImportError as error:
        remedy = "Run `make setup`, or `python setup.py build_ext --inplace` in the project's folder."
        return fault("modules", str(error), remedy)
    if implementation != "compiled":
        return warning("modules", f"the {implementation} modules run, at a tenth of the speed", "Unset FLOODGATE_CORE.")
    return ok("modules", "compiled")


def port(number: int, host: str, ours: str | None, refused: Callable[[int, str], str] = refusal) -> Check:
    """`ours` is the address of the running local system, if there is one."""
    if ours and ours.endswith(f":{number}"):
        return ok("port", f"{number} is ours: {ours}")
    if number == 0:
        return ok("port", "any free one")
    if why := refused(number, host):
        return fault("port", f"{number} is {why}", "Free it, or take another one with --port or http.port.")
    return ok("port", f"{number} is free")


def files(connections_max: int, limits: tuple[int, int] | None = None) -> Check:
    """Whether a worker may open as many files as it may have connections; `limits` are the soft and the hard one."""
    soft, hard = limits or resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (value if value != resource.RLIM_INFINITY else 1 << 30 for value in (soft, hard))
    wanted = connections_max + FILES_BESIDE
    remedy = f"Run `ulimit -n {wanted}` before the start (LimitNOFILE={wanted} in a unit of systemd)."
    if soft < FILES_MIN:
        return fault("files", f"a process may open {soft}, and the servers need {FILES_MIN}", remedy)
    if soft < wanted:
        said = f"a process may open {soft}, and http.connections_max = {connections_max} needs {wanted}"
        return warning("files", said, remedy if hard >= wanted else f"{remedy} The hard limit ({hard}) comes first.")
    return ok("files", f"a process may open {soft}; {wanted} are needed")


def backlog(file: Path = SOMAXCONN) -> Check:
    found = _number(file)
    if found is not None and found < BACKLOG:
        return warning(
            "backlog",
            f"net.core.somaxconn = {found}: when a sale opens, more connections than that at once are turned away",
            f"Run `sysctl -w net.core.somaxconn={BACKLOG}`.",
        )
    return ok("backlog", "not to be seen here" if found is None else f"net.core.somaxconn = {found}")


def migration(file: Path = MIGRATE) -> Check:
    found = _number(file)
    if found == 0:
        return warning(
            "migration",
            "net.ipv4.tcp_migrate_req = 0: connections that wait for a worker that is replaced are reset",
            "Run `sysctl -w net.ipv4.tcp_migrate_req=1`.",
        )
    return ok("migration", "not to be seen here" if found is None else f"net.ipv4.tcp_migrate_req = {found}")


def ticking(file: Path = CLOCK_SOURCE) -> Check:
    """The monotonic clock, which is read several times for each order."""
    try:
        source = file.read_text().strip()
    except OSError:
        return ok("monotonic clock", "its source is not to be seen here")
    if source in SLOW_SOURCES:
        remedy = "Find out why the kernel does not trust the processor's clock (`dmesg | grep -i clocksource`)."
        return warning("monotonic clock", f"{source}, of which each reading takes a microsecond and more", remedy)
    return ok("monotonic clock", source)


def memory(workers: int, file: Path = MEMORY, limit_file: Path = CGROUP_MEMORY) -> Check:
    """What is available, under the limit of the control group."""
    sizes = _sizes(file)
    limit = _number(limit_file)
    if "MemAvailable" not in sizes:
        return ok("memory", "not to be seen here")
    available = min(sizes["MemAvailable"], limit or sizes["MemAvailable"])
    wanted = workers * WORKER_BYTES + BESIDE_BYTES
    said = f"{available // MIB:,} MiB are available; {workers} workers and the servers need about {wanted // MIB:,}"
    remedy = "Free memory, or run fewer workers (--workers)."
    if available < BESIDE_BYTES:
        return fault("memory", said, remedy)
    return warning("memory", said, remedy) if available < wanted else ok("memory", said)


def _number(file: Path) -> int | None:
    """None where the file is not there, or names no number (`max`)."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _sizes(file: Path) -> Mapping[str, int]:
    """The sizes in /proc/meminfo, in bytes."""
    try:
        rows = (line.split() for line in file.read_text().splitlines())
        return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) >= 2}
    except OSError:
        return {}
