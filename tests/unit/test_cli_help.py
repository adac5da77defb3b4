"""The help of every command: a summary that is whole, and examples that can be typed; and the completion of shells."""

import itertools
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from deploy.local.folder import default_folder
from gateway.cli import COMMANDS, SECTIONS, main
from gateway.cli.examples import HEAD

SHELL_WORDS = {"|", ">", ">>", "&&", ";"}
PROGRAM = [sys.executable, "-P", "-c", "from gateway.cli import main; main(prog_name='floodgate')"]
SERVING = ("litestar", "granian", "asyncpg", "aiohttp", "nats", "redis", "sqlalchemy")


def paths(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command and subcommand."""
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        yield (*path, name)
        command = group.get_command(ctx, name)
        if isinstance(command, click.Group):
            yield from paths(command, (*path, name))


PATHS = list(paths(main))


def help_of(path: tuple[str, ...]) -> str:
    result = CliRunner().invoke(main, [*path, "--help"], prog_name="floodgate", terminal_width=80)
    assert result.exit_code == 0, result.output
    return result.output


def examples_of(path: tuple[str, ...]) -> list[str]:
    _, _, block = help_of(path).partition(f"{HEAD}\n")
    return [line.strip() for line in block.splitlines() if line.strip()]


def words_of(example: str) -> list[str]:
    """The arguments of the example's own command: what follows a pipe is the shell's."""
    inner = example.removeprefix('eval "$(').removesuffix(')"')
    words = list(itertools.takewhile(lambda word: word not in SHELL_WORDS, shlex.split(inner)))
    assert words[0] == "floodgate", example
    return words[1:]


def parse(words: list[str]) -> tuple[str, ...]:
    """Parse as the commands would, without calling one; returns the words of the command."""
    ctx, path = main.make_context("floodgate", list(words)), tuple[str, ...]()
    while isinstance(ctx.command, click.Group) and (ctx._protected_args or ctx.args):
        name, command, rest = ctx.command.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
        assert command is not None
        assert name
        ctx, path = command.make_context(name, rest, parent=ctx), (*path, name)
    return path


@pytest.mark.parametrize("path", [(), *PATHS], ids=" ".join)
def test_help_has_examples_that_parse(path: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = examples_of(path)
    assert examples
    for example in examples:
        words = words_of(example)
        for word in words:
            if Path(word).suffix in {".toml", ".csv", ".ndjson", ".json", ".gz", ".token"}:
                Path(word).touch()
        if words[-1] != "--help":
            assert parse(words)[: len(path)] == path


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_begins_with_a_summary_of_one_line(path: tuple[str, ...]) -> None:
    _, _, text = help_of(path).partition("\n\n")
    first = text.split("\n\n")[0].strip()
    assert first.split(". ")[0].count("\n") <= 1
    assert first[0].isupper()


@pytest.mark.parametrize("path", [(), *(path for path in PATHS if len(path) == 1)], ids=" ".join)
def test_help_of_a_group_shows_its_summaries_whole(path: tuple[str, ...]) -> None:
    listed, _, _ = help_of(path).partition(HEAD)
    assert "..." not in listed.replace("COMMAND [ARGS]...", "").replace("[OPTIONS]", "").replace("]...", "")


def test_help_groups_every_command_once() -> None:
    text = help_of(())
    assert all(f"\n{heading}:\n" in text for heading in SECTIONS)
    assert sorted(name for section in SECTIONS.values() for name in section) == sorted(COMMANDS)


def test_command_that_is_misspelt_names_the_nearest() -> None:
    result = CliRunner().invoke(main, ["cofnig"])
    assert result.exit_code == 2
    assert "No such command 'cofnig'. The nearest is `config`." in result.output


@pytest.mark.parametrize(("shell", "mark"), [("bash", "complete -o nosort"), ("zsh", "compdef"), ("fish", "complete ")])
def test_completion_prints_a_script_and_how_to_install_it(shell: str, mark: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell], prog_name="floodgate")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].startswith("# Completion of floodgate. ")
    assert f"floodgate completion {shell}" in result.stdout.splitlines()[0]
    assert mark in result.stdout
    assert "_FLOODGATE_COMPLETE" in result.stdout


def test_completion_of_an_unknown_shell_names_the_known_ones() -> None:
    result = CliRunner().invoke(main, ["completion", "tcsh"])
    assert result.exit_code == 2
    assert "'bash', 'zsh', 'fish'" in result.output


def completed(words: str, *, also: str = "") -> list[str]:
    """What bash would be offered for the last word."""
    environment = os.environ | {
        "_FLOODGATE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    program = [*PROGRAM[:-1], f"{also}{PROGRAM[-1]}"]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_completion_of_a_command_offers_what_begins_so() -> None:
    assert completed("floodgate st") == ["status", "stock", "steward"]


def test_completion_of_a_subcommand_and_its_options_is_offered() -> None:
    assert completed("floodgate stock re") == ["reshard"]
    assert "--scope" in completed("floodgate client add --s")
    assert "orders:write" in completed("floodgate client add shop --scope orders:w")


def test_completion_of_commands_loads_none_of_them() -> None:
    check = (
        "import atexit, sys;"
        f"atexit.register(lambda: print(sorted(set({SERVING!r}) & set(sys.modules)), file=sys.stderr)"
        f" if set({SERVING!r}) & set(sys.modules) else None);"
    )
    assert completed("floodgate ", also=check) == list(COMMANDS)


def test_completion_script_of_bash_completes_in_bash() -> None:
    folder = str(Path(sys.executable).parent)
    script = (
        'eval "$(floodgate completion bash)"; COMP_WORDS=(floodgate conf); COMP_CWORD=1;'
        ' _floodgate_completion floodgate; echo "${COMPREPLY[@]}"'
    )
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "config", done.stderr


def test_default_folder_is_not_asked_for_by_help() -> None:
    assert str(default_folder()) not in help_of(("status",))
