"""The command line: `datazone-dagster`.

A command's module is imported when the command runs: `--help` is quick, and no command pays
for the libraries of another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import click

_AS_JSON = "datazone_dagster.as_json"


class LazyCommand(NamedTuple):
    """Module and attribute of a command, and its line in the overview.

    `failure` is the exit code of an error: not 1 where that is a result of the command.
    """

    module: str
    attribute: str
    short_help: str
    failure: int = 1


COMMANDS: Mapping[str, LazyCommand] = {
    "accept-function": LazyCommand(
        "datazone_dagster.commands.accept_function",
        "accept_function",
        "Accept rows that an older version of the function made.",
    ),
    "accept-gap": LazyCommand(
        "datazone_dagster.commands.accept_gap",
        "accept_gap",
        "Accept that changes of a source were lost.",
    ),
    "audit": LazyCommand(
        "datazone_dagster.commands.audit",
        "audit",
        "Compare datasets with the table as it is now.",
        failure=2,
    ),
    "completion": LazyCommand(
        "datazone_dagster.commands.completion",
        "completion",
        "Print the script that completes commands in your shell.",
    ),
    "cost": LazyCommand(
        "datazone_dagster.commands.cost",
        "cost",
        "Estimate what a stream costs a month: calls, storage, CPU.",
    ),
    "demo": LazyCommand(
        "datazone_dagster.demo.command",
        "demo",
        "Write live orders to a local DynamoDB, with Dagster on top.",
    ),
    "doctor": LazyCommand(
        "datazone_dagster.commands.doctor",
        "doctor",
        "Check credentials, IAM actions, streams, lakehouse and Dagster.",
    ),
    "emulator": LazyCommand(
        "datazone_dagster.local.emulator_command",
        "emulator",
        "Run a local DynamoDB with streams on 127.0.0.1.",
    ),
    "erase": LazyCommand(
        "datazone_dagster.commands.erase",
        "erase",
        "Erase items from the change log, datasets and old versions.",
    ),
    "import-export": LazyCommand(
        "datazone_dagster.commands.import_export",
        "import_export",
        "Read exports to S3 in place of a scan, or for a lost window.",
    ),
    "init": LazyCommand(
        "datazone_dagster.commands.init",
        "init",
        "Create a project that runs at once.",
    ),
    "maintain": LazyCommand(
        "datazone_dagster.commands.maintain",
        "maintain",
        "Join small files, drop hidden rows, delete orphan files.",
    ),
    "rebuild": LazyCommand(
        "datazone_dagster.commands.rebuild",
        "rebuild",
        "Rebuild a dataset from the change log and swap it in.",
    ),
    "redrive": LazyCommand(
        "datazone_dagster.commands.redrive",
        "redrive",
        "Apply the quarantined records of a dataset.",
    ),
    "resync": LazyCommand(
        "datazone_dagster.commands.resync",
        "resync",
        "Take a new snapshot of a table: repairs lost changes.",
    ),
    "status": LazyCommand(
        "datazone_dagster.commands.status",
        "status",
        "Show how far sources, snapshots and datasets are.",
    ),
    "tail": LazyCommand(
        "datazone_dagster.commands.tail",
        "tail",
        "Show the changes of a source as they land.",
    ),
}


class LazyGroup(click.Group):
    """Click group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of all commands, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import a command; None if there is none of this name."""
        lazy = COMMANDS.get(cmd_name)
        if lazy is None:
            return None
        command: Any = getattr(import_module(lazy.module), lazy.attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{lazy.module}:{lazy.attribute} is not a click command")
        return _with_schema(cmd_name, command)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note whether errors are to be JSON, too; click parses the rest."""
        ctx.meta[_AS_JSON] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error becomes its text on standard error, with `--json` an object."""
        from datazone_dagster.errors import DatazoneError

        try:
            return super().invoke(ctx)
        except DatazoneError as error:
            lazy = COMMANDS.get(ctx.invoked_subcommand or "")
            code = 1 if lazy is None else lazy.failure
            parts = {"message": error.what, "safe": error.safe, "hint": error.hint}
            _fail(ctx, code, str(error), {"type": type(error).__name__, **parts})
        except click.UsageError as error:
            if not ctx.meta[_AS_JSON]:
                raise
            parts = {"message": error.format_message(), "safe": "", "hint": ""}
            _fail(ctx, error.exit_code, "", {"type": "UsageError", **parts})

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the overview without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].short_help) for name in sorted(COMMANDS)])


def _with_schema(name: str, command: click.Command) -> click.Command:
    """Return a command with the option that prints the schema of its JSON."""

    def show(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
        if wanted:
            from datazone_dagster.commands.json_schemas import SCHEMAS

            click.echo(json.dumps(SCHEMAS[name], indent=2))
            ctx.exit()

    if all(option.name != "json_schema" for option in command.params):
        option = click.Option(
            ["--json-schema"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=show,
            help="Print the JSON Schema of --json.",
        )
        command.params.append(option)
    return command


def _fail(ctx: click.Context, code: int, text: str, error: Mapping[str, str]) -> NoReturn:
    if ctx.meta[_AS_JSON]:
        click.echo(json.dumps({"error": error}))
    else:
        click.echo(f"Error: {text}", err=True)
    ctx.exit(code)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="datazone-dagster", prog_name="datazone-dagster")
def main() -> None:
    """DynamoDB Streams become Delta Lake tables in Dagster."""


if __name__ == "__main__":
    main()
