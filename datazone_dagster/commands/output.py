"""Lines that commands print. They may quote data, so each is escaped."""

from __future__ import annotations

import json
from datetime import datetime

import click

from datazone_dagster.text import escaped

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
"""The option of every command, unless it says more."""


def say(line: str) -> None:
    """Print one line of text."""
    click.echo(escaped(line))


def note(line: str | None) -> None:
    """Print one line to standard error, if there is one."""
    if line:
        click.echo(escaped(line), err=True)


def say_json(value: object) -> None:
    """Print a value as one line of JSON. Times are ISO 8601.

    Its schema is in `json_schemas.SCHEMAS`, under the name of the command.
    """
    click.echo(json.dumps(value, default=_plain))


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not a value of JSON")
