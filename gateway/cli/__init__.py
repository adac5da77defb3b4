"""The command line: `floodgate COMMAND`. A command says what happened, why, and what to do next; it exits 0 only on
success.

Commands are imported when they are called, so that `floodgate --help` and `status` do not load a web server.
"""

import importlib

import click

# command -> (module, attribute, one line for --help)
COMMANDS = {
    "up": ("gateway.cli.up", "up", "Run the whole system on this machine."),
    "down": ("gateway.cli.up", "down", "Stop the system that `up` started."),
    "status": ("gateway.cli.up", "status", "Say what runs, and where."),
    "migrate": ("gateway.cli.processes", "migrate", "Bring the ledger's schema and the streams up to date."),
    "serve": ("gateway.cli.serve", "serve", "Run a gateway."),
    "steward": ("gateway.cli.processes", "steward", "Run a steward."),
    "projector": ("gateway.cli.processes", "projector", "Run a projector."),
    "product": ("gateway.cli.product", "product", "Show and change the catalogue."),
    "sale": ("gateway.cli.sale", "sale", "Make, open, close and report sales."),
    "stock": ("gateway.cli.stock", "stock", "Show and change stock."),
    "client": ("gateway.cli.client", "client", "Make, rotate and revoke the tokens of API clients."),
    "config": ("gateway.cli.config", "configuration", "Show and change settings."),
    "audit": ("gateway.cli.audit", "audit", "Check that the books balance."),
    "events": ("gateway.cli.events", "events", "Print events from the stream."),
    "replay": ("gateway.cli.replay", "replay", "Feed a file of real orders through the HTTP edge."),
}


class Lazy(click.Group):
    """A group whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="floodgate", prog_name="floodgate")
def main() -> None:
    """Floodgate: an order gateway for flash sales, with a full order-management system behind it."""
