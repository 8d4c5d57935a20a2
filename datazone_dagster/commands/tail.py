"""`datazone-dagster tail`: changes of a source as they land."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Any

import click

from datazone_dagster.commands.output import say, say_json
from datazone_dagster.commands.project import Project, project_options
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.landed_change import LandedChange
from datazone_dagster.pipeline import ChangeTail, utc_now
from datazone_dagster.text import shown

LOOK_SECONDS = 1.0
REMOTE_LOOK_SECONDS = 5.0
"""Time between two looks for new batches; in an object store, each is a request."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGO = re.compile(r"(\d+)([smhd])")
_BEGINNING = datetime(1970, 1, 1, tzinfo=timezone.utc)
_VALUE_CHARS = 60
_ABSENT = "-"


@click.command(short_help="Show the changes of a source as they land.")
@click.argument("source_name", metavar="SOURCE")
@click.option(
    "--from",
    "begin",
    metavar="WHEN",
    help="Begin with the changes of this time: 15m, 2h or 3d ago, an ISO time such as "
    "2026-01-31T12:00:00Z, or start: all that are left.  [default: those that land from now on]",
)
@click.option(
    "--filter",
    "key",
    metavar="KEY",
    help="Only changes of this item: id=a, pk=a,sk=1 or DynamoDB JSON.",
)
@click.option("--changes", type=click.IntRange(min=1), help="Stop after this many changes.")
@click.option("--no-follow", is_flag=True, help="Stop after the changes that have landed by now.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a change per line.")
@project_options
def tail(
    project: Project,
    source_name: str,
    begin: str | None,
    key: str | None,
    changes: int | None,
    no_follow: bool,
    as_json: bool,
) -> None:
    """Show the changes of SOURCE as the drain lands them in the change log. Ctrl-C stops.

    It reads the change log, not the stream, which has room for two readers: the drain is not
    disturbed, and Dagster has to run. Masks of the source have been applied when a change landed.
    Values that landed before a mask was set are hidden here, and the line says so: the change log
    and the datasets still have them.
    """
    source = project.source_of(source_name)
    project.require_change_log(source)
    since = None if begin is None else time_of(begin, utc_now())
    changes_left = changes
    reader = ChangeTail(source, project.layout, since=since, key=key)
    pause_seconds = REMOTE_LOOK_SECONDS if project.layout.is_remote else LOOK_SECONDS
    with suppress(KeyboardInterrupt):
        while True:
            for change in islice(reader.read(), changes_left):
                say_json(change.to_json()) if as_json else say(line(change))
                changes_left = None if changes_left is None else changes_left - 1
            if no_follow or changes_left == 0:
                return
            time.sleep(pause_seconds)


def time_of(text: str, now: datetime) -> datetime:
    """Return the time that a `--from` means.

    Raises:
        DefinitionError: It is none of the allowed forms.
    """
    if text == "start":
        return _BEGINNING
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        # Python 3.10 knows no Z.
        found = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
    except (ValueError, OverflowError) as error:
        raise DefinitionError(
            f"--from {text!r} is no time.",
            safe="Nothing was read.",
            hint="Give 30s, 15m, 2h or 3d, an ISO time such as 2026-01-31T12:00:00Z, or start.",
        ) from error
    return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)


def line(change: LandedChange) -> str:
    """Return a change in one line: time, kind, key, and what the attributes were and are."""
    at = "unknown time" if change.event_time is None else f"{change.event_time:%Y-%m-%d %H:%M:%S}"
    if change.keys is None:
        return f"{at}  batch {change.batch}  not a stream record: {shown(change.malformed)}"
    key = ",".join(f"{shown(name)}={_plain(value)}" for name, value in change.keys.items())
    kind = f"{change.event_name}{' (time to live)' if change.by_ttl else ''}"
    hidden = "(landed before its mask)" if change.hidden else ""
    return "  ".join(part for part in (at, kind, key, _differences(change), hidden) if part)


def _differences(change: LandedChange) -> str:
    old, new, keys = change.old or {}, change.new or {}, change.keys or {}
    if change.new is None:
        return ""
    names = [name for name in dict.fromkeys((*old, *new)) if name not in keys]
    if change.old is None:
        return ", ".join(f"{shown(name)}: {_plain(new.get(name))}" for name in names)
    return ", ".join(
        f"{shown(name)}: {_plain(old.get(name))} -> {_plain(new.get(name))}"
        for name in names
        if old.get(name) != new.get(name)
    )


def _plain(value: Mapping[str, Any] | None) -> str:
    """Return a value as people write it: texts and numbers as they are, others as JSON."""
    if not isinstance(value, dict):
        return _ABSENT
    text = value.get("S", value.get("N"))
    return shown(json.dumps(value) if text is None else text, _VALUE_CHARS)
