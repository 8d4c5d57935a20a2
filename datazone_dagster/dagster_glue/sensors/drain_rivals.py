"""Drain runs of another code location in the same lakehouse, with other settings.

Each of two sensors would take the runs of the other for former ones, end them, and start its own,
at every tick. So the location whose runs were there first goes on. The other reads nothing, says
so, and leaves a note at a run of the first, which says so, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from dagster import DagsterInstance, RunRecord

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.dagster_glue.names import RIVAL_TAG
from datazone_dagster.dagster_glue.runs.job_runs import PARTITION_TAG
from datazone_dagster.dagster_glue.runs.placed_runs import PlacedRuns
from datazone_dagster.model.shard_set import shard_set_named

NOTED_EVERY = timedelta(minutes=1)
NOTED_FOR = timedelta(minutes=3)
"""Age up to which a note of another location counts: it is renewed while the conflict lasts."""


@dataclass(frozen=True, slots=True)
class Rivals:
    """Runs of the other location.

    Args:
        location: Its name.
        records: Its runs, newest first.
        were_first: Whether the oldest of them is older than every run of ours.
    """

    location: str
    records: tuple[RunRecord, ...]
    were_first: bool


def rivals_in(placed: PlacedRuns, records: Sequence[RunRecord], version: str) -> Rivals | None:
    """Return the runs of another location at work; None if there are none.

    Args:
        placed: The place that asks.
        records: Active drain runs in this lakehouse, newest first.
        version: Version of the settings of our own runs.
    """
    names = {one.storage_id: placed.rival(one.dagster_run, version) for one in records}
    location = next(filter(None, names.values()), "")
    if not location:
        return None
    others = tuple(one for one in records if names[one.storage_id])
    own = [one.storage_id for one in records if not names[one.storage_id]]
    oldest = min(one.storage_id for one in others)
    return Rivals(location, others, were_first=oldest < min(own, default=oldest + 1))


def rivalry(source: DynamoDBSource, placed: PlacedRuns, rivals: Rivals) -> str:
    """Return what is wrong, as a sentence: which two locations, who goes on, what to change."""
    own = placed.location
    first, second = (rivals.location, own) if rivals.were_first else (own, rivals.location)
    found = (one.dagster_run.tags.get(PARTITION_TAG, "") for one in rivals.records)
    numbers = {one.of for name in found if (one := shard_set_named(name)) is not None}
    workers = source.drain_workers or 1
    differs = f" (drain_workers is {workers} in {own}, {max(numbers)} in {rivals.location})"
    return (
        f"The code locations {own} and {rivals.location} both drain {source.name} into "
        f"{placed.place.lakehouse}, with other settings"
        f"{differs if numbers - {workers} else ''}. The runs of {first} go on, and {second} reads "
        "nothing. Keep the source in one code location, or give both the same DynamoDBSource, "
        "DrainSettings and version of the library."
    )


def leave_note(instance: DagsterInstance, rivals: Rivals, text: str, now: datetime) -> None:
    """Leave a note at the newest run of the other location, at most once a minute."""
    run = rivals.records[0].dagster_run
    at, _ = _note(run.tags.get(RIVAL_TAG, ""))
    if at is None or now - at >= NOTED_EVERY:
        instance.add_run_tags(run.run_id, {RIVAL_TAG: f"{now.isoformat()} {text}"})


def note_in(records: Sequence[RunRecord], now: datetime) -> str:
    """Return the note that another location has left at one of our runs; empty if there is none."""
    for record in records:
        at, text = _note(record.dagster_run.tags.get(RIVAL_TAG, ""))
        if at is not None and now - at < NOTED_FOR:
            return text
    return ""


def _note(tag: str) -> tuple[datetime | None, str]:
    at, _, text = tag.partition(" ")
    return (datetime.fromisoformat(at) if at else None), text
