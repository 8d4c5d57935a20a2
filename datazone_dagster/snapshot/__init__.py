"""Stage one, second door: scan a table; land its items in the change log next to the stream."""

from datazone_dagster.snapshot.facade import snapshot_source
from datazone_dagster.snapshot.requests import cancel_snapshot, snapshot_status, want_snapshot
from datazone_dagster.snapshot.snapshot_settings import SnapshotSettings

__all__ = [
    "SnapshotSettings",
    "cancel_snapshot",
    "snapshot_source",
    "snapshot_status",
    "want_snapshot",
]
