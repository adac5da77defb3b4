"""`make sanitize`: builds core_ext with AddressSanitizer and UndefinedBehaviorSanitizer and runs the tests of core_ext
over it.

The build stands in a folder of its own, so the one in use is never replaced. Any fault ends the run with its place in
the source and a status that is not 0. Takes about two minutes; no longer than TIMEOUT_S.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
STAGE = ROOT / "build" / "sanitized"
TIMEOUT_S = 900
COPIED = ("core_ext", "tests", "gateway", "persistence", "deploy")  # core_ext, its tests, and what they import
# Without settings of its own pytest would find the project's, and with them the core_ext in use.
SETTINGS = """[pytest]
addopts = --import-mode=importlib
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
pythonpath = .
timeout = 300
"""
# What is loaded has to be what was built here.
IS_STAGED = "import core_ext, sys; sys.exit(not core_ext.rows.__file__.startswith(sys.argv[1]))"
# Leaks are `make leaks`' business: what CPython keeps until its end is none, and LeakSanitizer cannot tell.
ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:abort_on_error=0:exitcode=97",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1:exitcode=98",
    "PYTHONMALLOC": "malloc",  # else small objects lie in arenas, whose bounds nobody watches
}


def stage() -> None:
    """Lay out a tree whose core_ext is a copy, without anything built."""
    shutil.rmtree(STAGE, ignore_errors=True)
    built = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
    for name in COPIED:
        shutil.copytree(ROOT / name, STAGE / name, ignore=built)
    shutil.copy(ROOT / "setup.py", STAGE)
    (STAGE / "pytest.ini").write_text(SETTINGS)


def run(*arguments: str, **environment: str) -> int:
    """Run Python in the staged tree; its exit status."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=STAGE, env=os.environ | environment, check=False, timeout=TIMEOUT_S
    ).returncode


def libasan() -> str:
    """The runtime of AddressSanitizer, which has to be loaded before Python."""
    command = ["gcc", "-print-file-name=libasan.so"]
    path = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    if not Path(path).is_absolute():
        sys.exit(
            "gcc has no libasan. Install it: apt-get install libasan8 (Debian, Ubuntu), dnf install libasan (Fedora)."
        )
    return path


def main() -> int:
    preload = libasan()
    stage()
    status = run("setup.py", "build_ext", "--inplace", "-q", "-j2", FLOODGATE_SANITIZE="1")
    if status:
        return status
    environment = ENVIRONMENT | {"LD_PRELOAD": preload}
    if run("-c", IS_STAGED, str(STAGE), **environment):
        sys.exit("another core_ext than the one just built is loaded")
    return run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/ext", **environment)


if __name__ == "__main__":
    sys.exit(main())
