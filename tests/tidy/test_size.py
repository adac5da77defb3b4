"""The size of things: what a reader can take in at once."""

import statistics

from tests.tidy.source import ROOT, functions, modules

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
FUNCTION_LINES_MEDIAN_MAX = 10
FUNCTION_LINES_P90_MAX = 35
HEADER_LINES_MAX = 8
VAGUE = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc"}


def lengths() -> dict[str, int]:
    """The lines of each function, its decorators left out."""
    return {
        f"{module.path}:{function.lineno} {function.name}": (function.end_lineno or 0) - function.lineno + 1
        for module in modules()
        for function in functions(module.tree)
    }


def test_functions_are_short() -> None:
    assert [(name, lines) for name, lines in lengths().items() if lines > FUNCTION_LINES_MAX] == []


def test_functions_are_mostly_very_short() -> None:
    lines = sorted(lengths().values())
    assert statistics.median(lines) <= FUNCTION_LINES_MEDIAN_MAX
    assert lines[len(lines) * 9 // 10] <= FUNCTION_LINES_P90_MAX


def test_files_are_short() -> None:
    sources = [
        *ROOT.glob("tests/**/*.py"),
        *(ROOT / module.path for module in modules()),
        *ROOT.glob("core_ext/**/*.pyx"),
    ]
    counts = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources}
    assert {path: lines for path, lines in counts.items() if lines > FILE_LINES_MAX} == {}


def test_files_open_with_a_header_that_says_why() -> None:
    """Every file but an empty __init__.py; the header is the docstring, of at most 8 lines."""
    wrong = []
    for module in modules():
        header = module.tree.body[0].end_lineno if module.tree.body else 0
        has_header = module.text.startswith('"""') and header is not None and header <= HEADER_LINES_MAX + 8
        if module.text and not has_header:
            wrong.append(module.path)
    assert wrong == []


def test_files_have_names_that_say_something() -> None:
    assert [module.path for module in modules() if set(module.path.removesuffix(".py").split("/")) & VAGUE] == []
