"""`floodgate completion`: prints what a shell needs to complete commands, options and files. The work is click's own;
nothing that is completed comes from a server.
"""

import click
from click.shell_completion import get_completion_class

from gateway.cli.examples import examples

PROGRAM = "floodgate"
VARIABLE = "_FLOODGATE_COMPLETE"  # set by the script, read by click
INSTALL = {
    "bash": 'Add to ~/.bashrc: eval "$(floodgate completion bash)"',
    "zsh": 'Add to ~/.zshrc, after compinit: eval "$(floodgate completion zsh)"',
    "fish": "Run: floodgate completion fish > ~/.config/fish/completions/floodgate.fish",
}


@examples(
    'eval "$(floodgate completion bash)"',
    "floodgate completion zsh > ~/.floodgate-completion.zsh",
    "floodgate completion fish > ~/.config/fish/completions/floodgate.fish",
)
@click.command()
@click.argument("shell", type=click.Choice(list(INSTALL)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    It begins with how to install it. Commands, options, choices and file names are completed; SKUs and other names that
    only a server knows are not, so the key never waits for a network.
    """
    found = get_completion_class(shell)
    assert found is not None, shell
    click.echo(f"# Completion of {PROGRAM}. {INSTALL[shell]}")
    click.echo(found(ctx.find_root().command, {}, PROGRAM, VARIABLE).source())
