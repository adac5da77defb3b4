"""The command line: `floodgate COMMAND`. A command says what happened, why, and what to do next; it exits 0 only on
success.

Commands are imported when they are called, so that `floodgate --help`, completion and `status` do not load a web
server.
"""

import difflib
import importlib
from typing import Any

import click
from click.shell_completion import CompletionItem

# Heading of --help -> command -> (module, attribute, one line for --help)
SECTIONS = {
    "This machine": {
        "up": ("gateway.cli.up", "up", "Run the whole system on this machine."),
        "down": ("gateway.cli.up", "down", "Stop the system that `up` started."),
        "status": ("gateway.cli.up", "status", "Say what runs, and where."),
        "doctor": ("gateway.cli.doctor", "doctor", "Look for what keeps Floodgate from running well here."),
        "completion": ("gateway.cli.completion", "completion", "Print the completion script of a shell."),
    },
    "Catalogue and stock": {
        "product": ("gateway.cli.product", "product", "Show and change the catalogue."),
        "stock": ("gateway.cli.stock", "stock", "Show and change stock."),
    },
    "Sales and orders": {
        "sale": ("gateway.cli.sale", "sale", "Make, open, close and report sales."),
        "replay": ("gateway.cli.replay", "replay", "Feed a file of real orders through the HTTP edge."),
        "events": ("gateway.cli.events", "events", "Print events from a stream."),
    },
    "Operations": {
        "client": ("gateway.cli.client", "client", "Make, rotate and revoke the tokens of API clients."),
        "config": ("gateway.cli.config", "configuration", "Show and change settings."),
        "recover": (
            "gateway.cli.recover",
            "recover",
            "Take back from the streams what a restored ledger does not know.",
        ),
        "journal": ("gateway.cli.journal", "journal", "Show journals, and give up one whose disk is lost."),
        "audit": ("gateway.cli.audit", "audit", "Check that the books balance."),
        "bench": ("gateway.cli.bench", "bench", "Measure what this machine does."),
        "faults": ("gateway.cli.faults", "faults", "Break a system of its own, and check that nothing is lost."),
    },
    "Processes of a deployment": {
        "migrate": ("gateway.cli.processes", "migrate", "Bring the ledger's schema and the streams up to date."),
        "serve": ("gateway.cli.serve", "serve", "Run a gateway."),
        "steward": ("gateway.cli.processes", "steward", "Run a steward."),
        "projector": ("gateway.cli.processes", "projector", "Run a projector."),
    },
}
COMMANDS = {name: command for section in SECTIONS.values() for name, command in section.items()}


class Lazy(click.Group):
    """A group whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            if ctx.resilient_parsing:  # A shell completes; there is nobody to tell.
                return None
            raise click.ClickException(f"{cmd_name} cannot be loaded: {error}. `floodgate doctor` says more") from error
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest command where there is none of this name."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], list(COMMANDS), n=1)
            if not near:
                raise
            raise click.UsageError(f"{error.message} The nearest is `{near[0]}`.", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        width = max(map(len, COMMANDS))
        for heading, commands in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), line) for name, (_, _, line) in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """As click does, without importing every command for its help."""
        found = [(name, line) for name, (_, _, line) in COMMANDS.items() if name.startswith(incomplete)]
        return [CompletionItem(name, help=line) for name, line in found] + click.Command.shell_complete(
            self, ctx, incomplete
        )

    def invoke(self, ctx: click.Context) -> Any:
        """What the machine refuses (a folder that cannot be entered, a full disk) ends a command with a message."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # Whoever read the output has seen enough: click ends without a word.
            raise
        except OSError as error:
            named = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{named}{error.strerror or error}") from error


@click.group(
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExamples:\n  floodgate up\n  floodgate stock show MUG-001 --watch\n  floodgate sale --help",
)
@click.version_option(package_name="floodgate", prog_name="floodgate")
def main() -> None:
    """Floodgate: an order gateway for flash sales, with a full order-management system behind it."""
