"""`datazone-dagster accept-gap`: accept that datasets stay without the changes that were lost."""

from __future__ import annotations

import getpass

import click

from datazone_dagster.commands.output import json_option, say, say_json
from datazone_dagster.commands.project import Project, project_options
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.checkpoint import GapNote
from datazone_dagster.observe.health import describe_gap
from datazone_dagster.pipeline import accept_gaps, gap_notes


@click.command(short_help="Accept that changes of a source were lost.")
@click.argument("source_name", metavar="SOURCE")
@click.option("--why", help="Reason, for others to read later. Required to accept a gap.")
@click.option("--by", help="Who accepts the gap.  [default: the user running the command]")
@click.option("--shard", "shards", multiple=True, help="Only the gap on this shard; repeatable.")
@click.option("--list", "only_list", is_flag=True, help="Only list the gaps, accepted or not.")
@json_option
@project_options
def accept_gap(
    project: Project,
    source_name: str,
    why: str | None,
    by: str | None,
    shards: tuple[str, ...],
    only_list: bool,
    as_json: bool,
) -> None:
    """Accept the open gaps of SOURCE: changes that were gone from DynamoDB before they were read.

    Until a gap is accepted, the check stream_health of the source and the check complete of its
    datasets fail. Accept a gap once the datasets are repaired, or if they may stay as they are.
    The change log records who accepted it, when and why. Safe at any time, also while Dagster
    runs.
    """
    source = project.source_of(source_name)
    project.require_change_log(source)
    if only_list:
        _show(source.name, gap_notes(source.name, project.layout), as_json=as_json)
        return
    if why is None:
        raise DefinitionError(
            "A gap can't be accepted without a reason.", hint="Give one: --why '...'."
        )
    accepted = accept_gaps(
        source.name, project.layout, by=by or getpass.getuser(), why=why, shard_ids=shards
    )
    _show(source.name, accepted, as_json=as_json)


def _show(source_name: str, notes: tuple[GapNote, ...], *, as_json: bool) -> None:
    if as_json:
        say_json({"source": source_name, "gaps": [_plain(note) for note in notes]})
        return
    for note in notes:
        state = (
            f"repaired by {note.accepted_by} at {note.accepted_at:%Y-%m-%d %H:%M:%S} UTC: "
            f"{note.accepted_why}"
            if note.is_repaired
            else f"accepted by {note.accepted_by} at {note.accepted_at:%Y-%m-%d %H:%M:%S} UTC: "
            f"{note.accepted_why}"
            if note.accepted_at is not None
            else "open"
        )
        say(describe_gap(note.gap))
        say(f"  {state}")
    if not notes:
        say(f"No gap was ever recorded for source {source_name}.")


def _plain(note: GapNote) -> dict[str, object]:
    gap = note.gap
    return {
        "stream_arn": gap.stream_arn,
        "shard_id": gap.shard_id,
        "reason": gap.reason,
        "since": gap.since,
        "until": gap.until,
        "detected_at": note.detected_at,
        "state": "repaired" if note.is_repaired else "open" if note.is_open else "accepted",
        "accepted_by": note.accepted_by,
        "accepted_at": note.accepted_at,
        "accepted_why": note.accepted_why,
    }
