"""Do exports fit: the table of the source, and the window that was lost. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from datazone_dagster.errors import ExportError
from datazone_dagster.model.source_identity import SourceIdentity
from datazone_dagster.snapshot.export_manifest import NOTHING_LANDED, ExportSummary, shown_time
from datazone_dagster.text import shown


def require_table(summary: ExportSummary, table: SourceIdentity) -> None:
    """Check that an export is one of this table.

    Raises:
        ExportError: It is of another table, or of an earlier one with the same name.
    """
    same_arn = summary.table_arn == table.table_arn
    if not table.table_arn:
        same_arn = summary.table_arn.rpartition("/")[2] == table.table_name.rpartition("/")[2]
    if not same_arn:
        raise ExportError(
            f"The {summary.name} is of table {shown(summary.table_arn)}, not of {table}.",
            safe=NOTHING_LANDED,
            hint="Give an export of the source's own table.",
        )
    if table.table_id and summary.table_id != table.table_id:
        raise ExportError(
            f"The {summary.name} is of a table with id {shown(summary.table_id)}, which had the "
            f"name before {table}.",
            safe=NOTHING_LANDED,
            hint="Export the table that is there now.",
        )


def require_windows(
    exports: Sequence[ExportSummary], lost_from: datetime, lost_to: datetime
) -> None:
    """Check that incremental exports, in their order, cover a window without a hole.

    A window may begin before the end of the one before it: its states are newer. It may not end
    before or with it: its states would be older than those that landed.

    Args:
        exports: Summaries in the order in which they are to land.
        lost_from: First moment of the window.
        lost_to: End of the window, exclusive.

    Raises:
        ExportError: An export is full or of another table, or the windows are out of order,
            contain one another, or leave a hole.
    """
    covered = lost_from
    before: ExportSummary | None = None
    for export in exports:
        if export.from_time is None:
            raise _windows(
                f"The {export.name} has no window",
                "Give incremental exports only; a full export is read on its own.",
            )
        if before is not None:
            _require_after(before, export)
        if export.from_time > covered:
            raise _missing(covered, export.from_time, f"before the {export.name}")
        covered, before = max(covered, export.to_time), export
    if covered < lost_to:
        raise _missing(covered, lost_to, "after the last export" if exports else "at all")


def _require_after(before: ExportSummary, export: ExportSummary) -> None:
    assert before.from_time is not None  # checked in order
    assert export.from_time is not None
    if (before.table_arn, before.table_id) != (export.table_arn, export.table_id):
        raise _windows(
            f"The {export.name} is of table {shown(export.table_arn)} with id "
            f"{shown(export.table_id)}, the {before.name} is not",
            "Give exports of one table.",
        )
    if export.from_time < before.from_time:
        raise _windows(
            f"The windows are out of order: the {export.name} begins before the {before.name}",
            "Give the exports in the order of their windows.",
        )
    if export.to_time <= before.to_time:
        raise _windows(
            f"The windows overlap wrongly: the {export.name} ends within the {before.name}, so its "
            "states are older than those of the export before it",
            "Leave it out: what it holds is in the export before it.",
        )


def _missing(start: datetime, end: datetime, where: str) -> ExportError:
    most = timedelta(hours=24)
    parts = "one export" if end - start <= most else "exports of at most 24 hours each"
    return _windows(
        f"No export covers {shown_time(start)} to {shown_time(end)} {where}",
        f"Start {parts} of that window (15 minutes at least; the window may overlap the others), "
        "within the 35 days of point-in-time recovery, and give all exports in order.",
    )


def _windows(what: str, hint: str) -> ExportError:
    return ExportError(f"{what}.", safe="No row of these exports landed.", hint=hint)
