"""Events of Dagster that mention an erased item: previews, checks and errors, by their runs."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

from dagster import (
    AssetKey,
    DagsterEventType,
    DagsterInstance,
    DagsterRunStatus,
    EventLogEntry,
    EventRecordsFilter,
    RunsFilter,
)

from datazone_dagster.api import DynamoDBSource, Transform
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.observe.preview import markdown_cell
from datazone_dagster.text import shown

_AT_A_TIME = 500
_EVALUATIONS = 10_000
"""Newest evaluations of checks that are searched, for one asset."""
_OF_FAILURES = {DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE}


@dataclass(frozen=True, slots=True)
class Mention:
    """One event that mentions a value.

    Args:
        what: Asset and kind of the event.
        run_id: Run of the event; empty if it has none.
        at: Time of the event, in UTC.
    """

    what: str
    run_id: str
    at: datetime

    def to_json(self) -> dict[str, str]:
        """Return the mention as values of JSON."""
        return {"what": self.what, "run_id": self.run_id, "at": self.at.isoformat()}


def mentions(
    values: Collection[str],
    source: DynamoDBSource,
    transforms: Collection[tuple[Transform, AssetKeys]],
) -> tuple[list[Mention], str | None]:
    """Return the events in the instance of `DAGSTER_HOME` that mention a value, oldest first.

    Materializations and checks of the change log and of all datasets, and errors of failed runs,
    are searched; those of former keys, with another prefix or none, as well. The second value says
    why the instance was not read; None if it was.

    Args:
        values: Texts to find, as complete words.
        source: Source of the change log.
        transforms: All transforms, each with the keys of its assets.
    """
    if not os.environ.get("DAGSTER_HOME"):
        return [], (
            "DAGSTER_HOME is not set: the event log of Dagster was not searched. Previews and "
            "errors in it may show the items."
        )
    words = "|".join(sorted(map(re.escape, _spellings(values)), reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{words})(?!\w)")
    keys = {each.change_log(source) for one, each in transforms if one.source == source}
    keys |= {each.dataset(of.id) for one, each in transforms for of in one.outputs.values()}
    bare = AssetKeys()
    ids = {of.id for one, _ in transforms for of in one.outputs.values()}
    ends = {tuple(one.path) for one in (bare.change_log(source), *map(bare.dataset, ids))}
    # Broad on purpose: whatever the instance raises, the erasure is done and stays done.
    try:
        with DagsterInstance.get() as instance:
            events = [
                *_asset_events(instance, sorted(keys | _with_any_prefix(instance, ends))),
                *_failures(instance),
            ]
    except Exception as error:  # noqa: BLE001 - see above
        return [], f"The event log of Dagster can't be read: {type(error).__name__}: {shown(error)}"
    found = [
        Mention(what, entry.run_id, datetime.fromtimestamp(entry.timestamp, timezone.utc))
        for what, entry in events
        if pattern.search(repr(entry))
    ]
    return sorted(found, key=lambda one: one.at), None


def _spellings(values: Collection[str]) -> set[str]:
    """Return the values as our texts show them, in the form that `repr` gives to their events."""
    spelled = {form for one in values if one for form in (one, shown(one), markdown_cell(one))}
    return {*spelled, *(repr(one)[1:-1] for one in spelled)}


def _with_any_prefix(instance: DagsterInstance, ends: Collection[tuple[str, ...]]) -> set[AssetKey]:
    """Return the keys of the instance that end with one of `ends`: a prefix may have changed."""
    lengths = {len(one) for one in ends}
    return {
        key
        for key in instance.all_asset_keys()
        if any(tuple(key.path[-length:]) in ends for length in lengths)
    }


def _asset_events(
    instance: DagsterInstance, keys: Collection[AssetKey]
) -> Iterator[tuple[str, EventLogEntry]]:
    for key in keys:
        name, cursor, has_more = key.to_user_string(), None, True
        while has_more:
            page = instance.fetch_materializations(key, limit=_AT_A_TIME, cursor=cursor)
            for record in page.records:
                yield f"materialization of {name}", record.event_log_entry
            cursor, has_more = page.cursor, page.has_more
        # Dagster's default storage pages no evaluations.
        wanted = EventRecordsFilter(DagsterEventType.ASSET_CHECK_EVALUATION, asset_key=key)
        for record in instance.get_event_records(wanted, limit=_EVALUATIONS):
            yield f"check of {name}", record.event_log_entry


def _failures(instance: DagsterInstance) -> Iterator[tuple[str, EventLogEntry]]:
    for run in instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.FAILURE])):
        for entry in instance.all_logs(run.run_id, of_type=_OF_FAILURES):
            yield f"failed run of {run.job_name}", entry
