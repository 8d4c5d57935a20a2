"""Do exports fit: the table of the source, and the window that was lost. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from datazone_dagster.errors import ExportError
from datazone_dagster.model.report import Gap
from datazone_dagster.model.snapshot_state import EXPORT_SETTLE, Phase, SnapshotState
from datazone_dagster.model.source_identity import SourceIdentity
from datazone_dagster.snapshot.export_manifest import NOTHING_LANDED, ExportSummary, shown_time
from datazone_dagster.text import shown

WINDOW_MIN, WINDOW_MAX = timedelta(minutes=15), timedelta(hours=24)
"""Length of the window of an incremental export (ExportTableToPointInTime)."""


def require_fit(
    exports: Sequence[ExportSummary], state: SnapshotState, table: SourceIdentity
) -> None:
    """Check that exports can be read as the scan of an announced snapshot.

    Args:
        exports: Summaries in the order in which they are to land.
        state: The snapshot.
        table: Table of the source.

    Raises:
        ExportError: They are of another kind or table, are older than the announcement allows,
            leave a hole in the lost window, or others were begun.
    """
    for export in exports:
        require_table(export, table)
    _require_begun(exports, state)
    if state.reads == "windows":
        assert state.lost_from is not None  # set with `reads`
        assert state.export_after is not None  # announced
        require_windows(exports, state.lost_from - EXPORT_SETTLE, state.export_after)
        _require_joined(exports)
        return
    if len(exports) != 1 or exports[0].from_time is not None:
        raise ExportError(
            "A snapshot reads one full export.",
            safe=NOTHING_LANDED,
            hint="Incremental exports repair a gap: start the import with --gap.",
        )
    _require_time(exports[0], state)


def _require_begun(exports: Sequence[ExportSummary], state: SnapshotState) -> None:
    given = [export.export_arn for export in exports]
    if state.phase is Phase.SCANNING and given != list(state.exports):
        raise ExportError(
            f"This snapshot has landed {state.rows:,} rows of {_ids(state.exports)}, not of "
            f"{_ids(given)}.",
            safe="Nothing of the exports given landed.",
            hint="Go on with the same exports in the same order, or cancel the snapshot first.",
        )


def _require_time(export: ExportSummary, state: SnapshotState) -> None:
    """An export before the announcement may lack changes that were drained before it.

    Its rows would win over those changes for good.
    """
    after = state.export_after
    assert after is not None  # announced
    if export.to_time < after:
        raise ExportError(
            f"The {export.name} is too old for this snapshot: it was announced at "
            f"{shown_time(after - EXPORT_SETTLE)}, and older items would win over changes that "
            "were drained before.",
            safe=NOTHING_LANDED,
            hint=f"Make a new export of {shown_time(after)} or later and give that one.",
        )


def _require_joined(exports: Sequence[ExportSummary]) -> None:
    """Each window begins where the one before it ends.

    An item that is inserted and deleted within one window is not in its export at all. If it was
    inserted in the window before, too, that one shows it, and nothing shows its delete.
    """
    for before, export in pairwise(exports):
        if export.from_time != before.to_time:
            raise _windows(
                f"The {export.name} overlaps the {before.name}: a delete in both may be in neither",
                "Give exports whose windows begin where the one before ends.",
            )


def _ids(arns: Sequence[str]) -> str:
    return ", ".join(shown(arn.rpartition("/")[2]) for arn in arns) or "no export"


def lost_window_start(gaps: Sequence[Gap]) -> datetime:
    """Return the start of the window that all these gaps lie in.

    Raises:
        ExportError: There is no gap, or it is unknown when one began.
    """
    if not gaps:
        raise ExportError(
            "The source has no open gap: nothing was lost.",
            safe="Nothing was changed.",
            hint="A full export, without --gap, shows the whole table.",
        )
    known = [gap.since for gap in gaps if gap.since is not None]
    if len(known) < len(gaps):
        raise ExportError(
            "It is unknown when the open gap of the source began, so no window covers it.",
            safe="Nothing was changed.",
            hint="Give a full export, without --gap, or scan the table: datazone-dagster resync.",
        )
    return min(known)


def windows_for(start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """Return windows that cover a time span without hole or overlap, as the service takes them.

    A window has 15 minutes to 24 hours: a shorter span begins earlier.
    """
    first, last = start.replace(microsecond=0), end.replace(microsecond=0)
    last += timedelta(seconds=last < end)
    first = min(first, last - WINDOW_MIN)
    count = -(-(last - first) // WINDOW_MAX)
    edges = [
        first + timedelta(seconds=(last - first).total_seconds() * number // count)
        for number in range(count)
    ]
    return list(zip(edges, [*edges[1:], last], strict=True))


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
    parts = "one export" if end - start <= WINDOW_MAX else "exports of at most 24 hours each"
    return _windows(
        f"No export covers {shown_time(start)} to {shown_time(end)} {where}",
        f"Start {parts} of that window (15 minutes at least; the window may overlap the others), "
        "within the 35 days of point-in-time recovery, and give all exports in order.",
    )


def _windows(what: str, hint: str) -> ExportError:
    return ExportError(f"{what}.", safe="No row of these exports landed.", hint=hint)
