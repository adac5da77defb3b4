"""Installs the naive peer into an environment of its own and runs it: `environment` and `Peer`.

The environment lies in the user's cache folder, is made at first use, and is made anew when requirements.txt or the
interpreter changes. The project's own environment is never touched.
"""

import hashlib
import http.client
import os
import shutil
import subprocess
import sys
from pathlib import Path

from deploy.local.edge import request
from deploy.local.failure import StackError
from deploy.local.ports import pick_free
from deploy.local.process import Process

FOLDER = Path(__file__).parent
REQUIREMENTS = FOLDER / "requirements.txt"
SCHEMA = FOLDER / "schema.sql"
HOST = "127.0.0.1"
WORKERS = 2
INSTALL_TIMEOUT_S = 300.0
FINISHED = ".finished"  # A file that is written last: an installation that was interrupted has none.


def environment(cache: Path | None = None) -> Path:
    """The interpreter of the peer's environment, which is installed if need be. Raises StackError, which says why it
    cannot be.
    """
    folder = (cache or _cache()) / f"naive-{_digest()}"
    python = folder / "bin" / "python"
    if not (folder / FINISHED).exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS)])
        (folder / FINISHED).touch()
    return python


class Peer(Process):
    """The naive peer as a process: uvicorn with WORKERS workers. Its tables and stock have to be there."""

    def __init__(self, python: Path, postgres_url: str, redis_url: str, log_path: Path) -> None:
        self.port = pick_free(host=HOST)
        # The style of the tutorials, without a line in the log for each request, which costs them a tenth.
        command = [str(python), "-m", "uvicorn", "--app-dir", str(FOLDER), "--host", HOST, "--port", str(self.port)]
        options = ["--workers", str(WORKERS), "--log-level", "warning", "app:app"]
        told = {"DATABASE_URL": postgres_url, "REDIS_URL": redis_url, "PYTHONDONTWRITEBYTECODE": "1"}
        super().__init__("naive", [*command, *options], log_path, environment=os.environ | told)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def is_ready(self) -> bool:
        return request(self.url, "GET", "/health").status == http.client.OK


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "floodgate"


def _digest() -> str:
    return hashlib.blake2b(REQUIREMENTS.read_bytes() + sys.version.encode(), digest_size=6).hexdigest()


def _run(command: list[str]) -> None:
    try:
        subprocess.run(  # noqa: S603 - our own command, no shell
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=True
        )
    except subprocess.TimeoutExpired as error:
        raise StackError(f"the naive peer could not be installed within {INSTALL_TIMEOUT_S:.0f} s") from error
    except (subprocess.CalledProcessError, OSError) as error:
        said = getattr(error, "stderr", "") or str(error)
        last = said.strip().splitlines()[-1:] or [""]
        raise StackError(
            f"the naive peer cannot be installed ({last[0]}). Its packages come from an index that pip reaches"
            f" ({REQUIREMENTS}); without it run the other scenarios: floodgate bench echo accept"
        ) from error
