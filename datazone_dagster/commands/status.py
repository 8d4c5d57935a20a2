"""`datazone-dagster status`: how far sources, snapshots and datasets are."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timedelta

import click
from rich.console import Console
from rich.live import Live

from datazone_dagster.api import Dataset, DynamoDBSource
from datazone_dagster.api.kinesis_source import known_retention
from datazone_dagster.commands.output import json_option, say, say_json
from datazone_dagster.commands.project import Project, project_options
from datazone_dagster.commands.status_screen import screen
from datazone_dagster.dagster_glue.names import sensor_name
from datazone_dagster.errors import ConcurrentWriterError, SourceMismatchError
from datazone_dagster.model.report import Backlog
from datazone_dagster.model.source_state import SourceStatus
from datazone_dagster.observe.completeness import completeness
from datazone_dagster.observe.drain_sign import drain_sign
from datazone_dagster.observe.health import describe_gap
from datazone_dagster.observe.reach import reach_line, reach_metadata
from datazone_dagster.observe.snapshot_progress import progress_line, snapshot_metadata
from datazone_dagster.pipeline import (
    backlog,
    bucket_positions,
    flow_counts,
    source_status,
    utc_now,
    waits_for_rebuild,
)

WATCH_SECONDS = 2.0
REMOTE_WATCH_SECONDS = 10.0


@click.command(short_help="Show how far sources, snapshots and datasets are.")
@click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C.")
@json_option
@project_options
def status(project: Project, watch: bool, as_json: bool) -> None:
    """Show each source (drain, snapshot, gaps) and each dataset (position, rows, consistency).

    Everything is read from the lakehouse: neither DynamoDB nor Dagster is asked. It shows when a
    drain last read its stream: each batch does, and without changes a note every 10 minutes. So an
    idle stream and one that nobody drains look different after 12 minutes. --watch reads it
    every 2 seconds, every 10 in an object store, where each look is a few requests.
    """
    project.require_change_log(*project.sources.values())
    if watch:
        with suppress(KeyboardInterrupt):
            _watch(project, as_json=as_json)
        return
    found = sources_of(project, utc_now())
    if as_json:
        say_json({"sources": found})
        return
    for one in found:
        _show(one)


def sources_of(project: Project, now: datetime) -> list[dict[str, object]]:
    """Return the state of each source, as `--json` prints it."""
    return [_source(project, source, now) for source in project.sources.values()]


def _watch(project: Project, *, as_json: bool) -> None:
    pause_seconds = REMOTE_WATCH_SECONDS if project.layout.is_remote else WATCH_SECONDS
    console = Console(quiet=as_json)
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            now = utc_now()
            found = sources_of(project, now)
            if as_json:
                say_json({"sources": found})
            elif console.is_terminal:
                live.update(screen(found, now), refresh=True)
            else:
                console.print(screen(found, now))
            time.sleep(pause_seconds)


def _source(project: Project, source: DynamoDBSource, now: datetime) -> dict[str, object]:
    state = source_status(source.name, project.layout, now, source.drain_workers or 0)
    if state is None:
        read = "never drained" if source.stream_enabled else "no stream: each run scans the table"
        return {"source": source.name, "drained": False, "read": read, "datasets": []}
    gaps = [note.gap for note in state.gaps if note.is_open]
    snapshot = state.snapshot
    interval = timedelta(seconds=project.tick_seconds)
    sign = drain_sign(
        sensor_name(source),
        state.drained_at,
        now=now,
        interval=interval,
        retention=known_retention(source),
    )
    datasets = [
        _dataset(project, state, dataset, now)
        for transform in project.transforms
        for dataset in transform.outputs.values()
        if transform.source == source
    ]
    return {
        "source": source.name,
        "drained": True,
        "head_batch": state.head_batch,
        "read_through": state.read_through,
        "drain": sign.state.value,
        "drained_at": sign.at,
        "drain_age_seconds": sign.age_seconds,
        "drain_line": sign.line,
        "shards_open": state.shards_open,
        "snapshot": None if snapshot is None else snapshot_metadata(snapshot),
        "snapshot_line": "No snapshot was taken." if snapshot is None else progress_line(snapshot),
        "change_log": reach_metadata(state.reach),
        "change_log_line": reach_line(source.name, state.reach),
        "gaps": [describe_gap(gap) for gap in gaps],
        "sets": [asdict(one) for one in state.sets],
        "datasets": datasets,
    }


def _dataset(
    project: Project, state: SourceStatus, dataset: Dataset, now: datetime
) -> dict[str, object]:
    waiting, refusal = _backlog(project, state, dataset)
    gaps = [note.gap for note in state.gaps if note.is_open]
    found = waits_for_rebuild(state.source, [dataset.id], project.layout, now)
    waits = None if found is None else found[1]
    complete = completeness(state.source, gaps, state.snapshot, waiting.position)
    return {
        "dataset": dataset.id,
        "position": waiting.position,
        "pending_batches": waiting.head_batch - waiting.position,
        "rows": flow_counts(state.source, dataset.id, project.layout).rows,
        "complete": "error" if refusal else complete.level.value,
        "consistent": False if refusal else complete.consistent,
        "consistent_since": None if refusal else complete.consistent_since,
        "refusal": refusal,
        "waits_for": None if waits is None else waits.why,
        "waits_until": None if waits is None else waits.until,
    }


def _backlog(project: Project, state: SourceStatus, dataset: Dataset) -> tuple[Backlog, str | None]:
    """Return what a dataset waits for, and why its runs are refused; None if they are not."""
    try:
        return backlog(state.source, dataset.id, project.layout), None
    except (SourceMismatchError, ConcurrentWriterError) as error:
        [position] = bucket_positions(state.source, dataset.id, project.layout, 1).values()
        return Backlog(max(position, state.head_batch), position, None), str(error)


def _show(found: dict[str, object]) -> None:
    say(f"Source {found['source']}")
    if not found["drained"]:
        say(f"  {found['read']}")
        return
    say(
        f"  drain: batch {found['head_batch']}, {found['shards_open']} shards open, read through "
        f"{_text(found['read_through'])}"
    )
    say(f"  {found['drain_line']}")
    say(f"  {found['snapshot_line']}")
    say(f"  {found['change_log_line']}")
    gaps, datasets, sets = found["gaps"], found["datasets"], found["sets"]
    assert isinstance(gaps, list)
    assert isinstance(sets, list)
    assert isinstance(datasets, list)
    for gap in gaps:
        say(f"  open gap: {gap}")
    for one in sets:
        say(
            f"  set {one['name']}: {one['shards']} shards, last batch {one['last_batch']}, read "
            f"through {_text(one['read_through'])}"
        )
    for one in datasets:
        since = f", consistent since {_text(one['consistent_since'])}"
        say(
            f"  dataset {one['dataset']}: {one['rows']:,} rows at batch {one['position']}, "
            f"{one['pending_batches']} behind, complete: {one['complete']}"
            + (since if one["consistent"] else "")
        )
        if one["refusal"] is not None:
            say(f"    its runs are refused: {one['refusal']}")
        if one["waits_until"] is not None:
            until = _text(one["waits_until"])
            say(f"    its runs wait until {until} at most: {one['waits_for']}")


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    return "unknown" if value is None else str(value)
