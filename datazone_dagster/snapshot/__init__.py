"""Stage one, second door: scan a table; land its items in the change log next to the stream."""

from datazone_dagster.snapshot.export_facade import open_exports, start_exports
from datazone_dagster.snapshot.export_fit import lost_window_start
from datazone_dagster.snapshot.facade import snapshot_source
from datazone_dagster.snapshot.gap_resync import resync_after_gap
from datazone_dagster.snapshot.requests import (
    cancel_snapshot,
    plan_snapshot,
    snapshot_status,
    want_exports,
    want_snapshot,
)
from datazone_dagster.snapshot.snapshot_settings import SnapshotSettings
from datazone_dagster.snapshot.table_copy import copy_table

__all__ = [
    "SnapshotSettings",
    "cancel_snapshot",
    "copy_table",
    "lost_window_start",
    "open_exports",
    "plan_snapshot",
    "resync_after_gap",
    "snapshot_source",
    "snapshot_status",
    "start_exports",
    "want_exports",
    "want_snapshot",
]
