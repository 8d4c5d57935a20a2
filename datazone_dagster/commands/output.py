"""Lines that commands print. They may quote data, so each is escaped."""

from __future__ import annotations

import click

from datazone_dagster.text import escaped


def say(line: str) -> None:
    """Print one line of text."""
    click.echo(escaped(line))


def note(line: str | None) -> None:
    """Print one line to standard error, if there is one."""
    if line:
        click.echo(escaped(line), err=True)
