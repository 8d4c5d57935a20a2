"""`datazone-dagster completion`: the script that makes a shell complete the commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from datazone_dagster.commands.output import json_option, say_json

PROGRAM = "datazone-dagster"
VARIABLE = "_DATAZONE_DAGSTER_COMPLETE"


@click.command(short_help="Print the script that completes commands in your shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
@click.pass_context
def completion(context: click.Context, shell: str, as_json: bool) -> None:
    """Print the script that makes SHELL complete commands and options.

    \b
    bash: echo 'eval "$(datazone-dagster completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(datazone-dagster completion zsh)"' >> ~/.zshrc
    fish: datazone-dagster completion fish > ~/.config/fish/completions/datazone-dagster.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(context.find_root().command, {}, PROGRAM, VARIABLE).source()
    if as_json:
        say_json({"shell": shell, "script": script})
    else:
        click.echo(script)
