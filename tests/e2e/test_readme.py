"""The README's commands, run as they stand, from top to bottom; and the parts of the documents that are made from the
code.
"""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy import readme
from deploy.local.folder import DataFolder
from deploy.local.ports import pick_free

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORT = "8080"
# What runs these tests in the first place; see .ci/run.
RUNNING = "make test"
READY = "Floodgate is ready."
STOP_TIMEOUT_S = 60


def commands() -> list[str]:
    """The blocks of commands, without those that start the system and the tests."""
    blocks = BLOCK.findall(readme.README.read_text())
    assert f"{RUNNING}\n" in blocks
    assert "make up\n" in blocks
    return [block for block in blocks if block not in {f"{RUNNING}\n", "make up\n"}]


@contextmanager
def made_up(environment: dict[str, str]) -> Iterator[None]:
    """`make up` in the foreground, ended as by Ctrl-C."""
    with subprocess.Popen(
        ["make", "up"], cwd=readme.ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as making:
        assert making.stdout
        said = ""
        while READY not in said:
            line = making.stdout.readline()
            assert line, f"make up ended: {said}"
            said += line
        try:
            yield
        finally:
            os.killpg(making.pid, signal.SIGINT)
            try:
                making.communicate(timeout=STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(making.pid, signal.SIGKILL)
                raise


@pytest.mark.timeout(240)
def test_readme_commands_work_from_top_to_bottom(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    port = str(pick_free())
    environment = os.environ | {"FLOODGATE_DATA": str(folder.path), "FLOODGATE_HTTP__PORT": port}
    with made_up(environment):
        script = "set -eu\n" + "\n".join(commands()).replace(f":{PORT}", f":{port}")
        done = subprocess.run(
            ["bash", "-c", script], cwd=readme.ROOT, env=environment, capture_output=True, text=True, check=False
        )
    folder.wipe()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "HTTP/1.1 201" in done.stdout
    assert "The books balance." in done.stdout
    assert "counted: " in done.stdout


@pytest.mark.parametrize("document", readme.DOCUMENTS, ids=lambda path: path.name)
def test_parts_of_a_document_are_what_the_code_says(document: Path) -> None:
    assert document.read_text() == readme.filled(document), "run: python -m deploy.readme"


def test_example_settings_are_what_the_code_says() -> None:
    assert readme.EXAMPLE.read_text() == readme.example(), "run: python -m deploy.readme"


def test_ci_runs_what_the_readme_says() -> None:
    lines = (readme.ROOT / ".ci" / "run").read_text().splitlines()
    made = [line for line in lines if line.startswith("make ")]
    assert made == ["make lint", "make test"]
    assert all(f"`{line}`" in readme.README.read_text() or f"{line}\n" in readme.README.read_text() for line in made)
