"""Steps of a snapshot that reads exports instead of the table."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from datazone_dagster.errors import SnapshotError
from datazone_dagster.model.snapshot_state import SnapshotState, scan_started
from datazone_dagster.snapshot.export_manifest import shown_time
from datazone_dagster.snapshot.export_table import ExportedTable
from datazone_dagster.snapshot.next_step import Action, Step

_READING = (Action.START_SCAN, Action.SCAN)


def with_exports(step: Step, state: SnapshotState, exports: ExportedTable | None) -> Step:
    """Return the step: a process without the exports waits for one that has them.

    Raises:
        SnapshotError: Exports are given to a snapshot that scans the table.
    """
    if state.reads == "table":
        if exports is not None and step.action is not Action.NOTHING:
            raise SnapshotError(
                "The snapshot of this source scans the table; it reads no export.",
                safe="Nothing was read or written.",
                hint="Let it end, or cancel it and ask for one that reads exports.",
            )
        return step
    if exports is None and step.action in _READING:
        return Step(Action.WAIT, awaited(state))
    return step


def awaited(state: SnapshotState) -> str:
    """Return in words which exports a snapshot waits for."""
    after = state.export_after
    assert after is not None  # announced
    if state.exports and state.scan_started_at is not None:
        ids = ", ".join(arn.rpartition("/")[2] for arn in state.exports)
        return f"the rest of export {ids}, by datazone-dagster import-export"
    if state.reads == "export":
        return f"a full export of {shown_time(after)} or later, by datazone-dagster import-export"
    return f"incremental exports up to {shown_time(after)}, by datazone-dagster import-export"


def exports_begun(state: SnapshotState, exports: ExportedTable, now: datetime) -> SnapshotState:
    """Return the state once these exports are read; one segment is one file.

    Raises:
        ExportError: They don't fit the snapshot.
    """
    exports.require_fit(state)
    begun = scan_started(state, segments=exports.segments, at=now, exports=exports.arns)
    return replace(begun, exported_from=exports.from_time)
