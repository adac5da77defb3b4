"""The `Examples:` block that ends the help of every command. A test parses each line as the command would, so what
stands there can be typed.
"""

from collections.abc import Callable
from typing import TypeVar

import click

HEAD = "Examples:"

Command = TypeVar("Command", bound=click.Command)


def examples(*lines: str) -> Callable[[Command], Command]:
    """Give a finished command its examples; stands above `@click.command()`."""

    def given(command: Command) -> Command:
        # The mark keeps click from filling the lines into one paragraph.
        block = "\n".join(["\b", HEAD, *(f"  {line}" for line in lines)])
        command.epilog = f"{command.epilog}\n\n{block}" if command.epilog else block
        return command

    return given
