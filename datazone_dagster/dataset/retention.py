"""Oldest change that may still arrive late at a dataset: what its companion tables must outlive."""

from __future__ import annotations

from datetime import datetime

from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.delta.table import opened
from datazone_dagster.model.layout import CHANGE_LOG_KIND, Layout
from datazone_dagster.model.snapshot_state import PROPERTY, SnapshotState


def oldest_needed(layout: Layout, dataset_id: str, source: str) -> datetime | None:
    """Return the time from which on tombstones must stay; None if only the retention counts.

    A change that is redriven after weeks must not restore a key that was deleted since. Nor must
    a row of a scan that runs for weeks: it may be older than a delete that the stream showed since
    the snapshot was announced.

    Raises:
        StorageError: A table can't be read.
    """
    times = (Quarantine(layout, dataset_id).oldest_waiting(), _snapshot_since(layout, source))
    return min((time for time in times if time is not None), default=None)


def _snapshot_since(layout: Layout, source: str) -> datetime | None:
    log = opened(layout.change_log(source), layout.storage_options, CHANGE_LOG_KIND)
    stored = None if log is None else log.properties.get(PROPERTY)
    state = None if stored is None else SnapshotState.from_json(stored)
    return state.announced_at if state is not None and state.is_active else None
