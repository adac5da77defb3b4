"""What a process writes to its log: one JSON object a line, and of an error its place and its words, never the values
that were at hand.
"""

import json
import subprocess
import sys

LOGGING = """
import logging
import structlog
from gateway.process import configure_logging
from gateway.settings import Log

def seal(note):
    known = {"ship_to": note}
    return 1 / 0

configure_logging(Log(level="debug"))
structlog.get_logger("ours").info("hello", orders=3, batch=b"x")
logging.getLogger("theirs").warning("be%sare", "w")
for log in (structlog.get_logger("ours"), logging.getLogger("theirs")):
    try:
        seal("canary in a note")
    except ZeroDivisionError:
        log.exception("failed")
"""


def run(program: str) -> tuple[str, list[dict[str, object]]]:
    """What it writes to standard error, and the same read as JSON."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr, [json.loads(line) for line in done.stderr.splitlines()]


def test_log_lines_are_json_whoever_writes_them() -> None:
    _, (ours, theirs, *_) = run(LOGGING)
    assert (ours["event"], ours["level"], ours["orders"]) == ("hello", "info", 3)
    assert (theirs["event"], theirs["level"]) == ("beware", "warning")
    assert ours.keys() == {"event", "level", "timestamp", "orders", "batch"}


def test_log_lines_of_an_error_show_its_place_and_no_values() -> None:
    text, lines = run(LOGGING)
    failed = [line for line in lines if line["event"] == "failed"]
    assert len(failed) == 2
    assert all("ZeroDivisionError" in str(line["exception"]) and "in seal" in str(line["exception"]) for line in failed)
    assert "canary" not in text.replace('seal(\\"canary in a note\\")', "")


def test_log_lines_are_all_written_before_a_process_ends() -> None:
    _, lines = run(f"{LOGGING}\nfor number in range(5000):\n    structlog.get_logger('ours').info('line')\n")
    assert sum(line["event"] == "line" for line in lines) == 5000


def test_log_lines_of_a_library_that_gets_its_words_wrong_do_not_stop_it() -> None:
    wrong = f"{LOGGING}\nlogging.getLogger('theirs').warning('%d orders', 'three')\nlog.info('afterwards')\n"
    text, lines = run(wrong)
    (failed,) = [line for line in lines if line["event"] == "log_line_failed"]
    assert (failed["level"], failed["error"]) == ("warning", "TypeError")
    assert "three" not in text


def test_log_lines_of_texts_that_are_not_utf_8_are_written() -> None:
    _, lines = run(f"{LOGGING}\nstructlog.get_logger('ours').info('odd', name='a\\udcff', batch=b'x')\n")
    (odd,) = [line for line in lines if line["event"] == "odd"]
    assert odd["name"] == "a\udcff"
