"""Progress of a snapshot in words and numbers: for logs, metadata and commands."""

from __future__ import annotations

from datetime import timedelta

from datazone_dagster.model.snapshot_report import SnapshotReport
from datazone_dagster.model.snapshot_state import Phase
from datazone_dagster.observe.completeness import PHASES
from datazone_dagster.observe.lag import in_words
from datazone_dagster.observe.level import Level
from datazone_dagster.observe.metadata import Plain

FAILURES_TOLERATED = 2
"""Failures in a row of a run of a snapshot after which it is an error."""

_PHASES = {**PHASES, Phase.DONE: "is complete"}


def snapshot_metadata(report: SnapshotReport) -> dict[str, Plain]:
    """Return the metadata of a snapshot. Numbers are plotted; the price is in US dollars."""
    found: dict[str, Plain | None] = {
        "snapshot_phase": report.phase.value,
        "snapshot_reason": report.reason,
        "snapshot_id": report.id or None,
        "rows_scanned": report.rows,
        "items_in_table": report.item_count,
        "percent": _rounded(report.percent, 1),
        "bytes_scanned": report.bytes,
        "read_units_used": round(report.read_units, 1),
        "read_units_estimated": _rounded(report.estimated_read_units, 1),
        "read_units_per_second": _rounded(report.rate_units_per_second, 1),
        "limit_read_units_per_second": _rounded(report.limit_units_per_second, 1),
        "eta_seconds": _rounded(report.eta_seconds, 0),
        "price_estimated": _rounded(report.estimated_price, 4),
        "segments": report.segments,
        "segments_done": report.segments_done,
        "keys_checked": report.sweep.checked,
        "keys_deleted": report.sweep.deleted,
        "waits_for": report.waits_for or None,
        "began_again": report.began_again or None,
        "consistent_since": report.consistent_since,
    }
    return {name: value for name, value in found.items() if value is not None}


def snapshot_level(report: SnapshotReport | None, failures: int, *, asks: bool) -> Level:
    """Return the level of the check `snapshot`.

    Args:
        report: The last snapshot of a source; None if there never was one.
        failures: Runs of it that failed in a row.
        asks: Whether it goes on only if somebody says so.
    """
    if report is None or report.phase is Phase.DONE:
        return Level.OK
    stuck = failures > FAILURES_TOLERATED or (asks and failures > 0)
    return Level.ERROR if stuck and not report.is_over else Level.WARN


def progress_line(report: SnapshotReport) -> str:
    """Describe a snapshot in one line: phase, rows, share, read units, rate, time left."""
    parts = [f"Snapshot of {report.source} {_PHASES[report.phase]}"]
    if report.consistent_since is not None:
        parts.append(f"consistent since {report.consistent_since:%Y-%m-%d %H:%M:%S} UTC")
    if report.rows:
        share = "" if report.percent is None else f" ({report.percent:.0f} %)"
        parts.append(f"{report.rows:,} rows{share}")
    if report.read_units:
        parts.append(f"{report.read_units:,.0f} read units")
    if report.phase is Phase.SCANNING:
        if report.rate_units_per_second:
            parts.append(f"{report.rate_units_per_second:,.0f} a second")
        if report.eta_seconds is not None:
            parts.append(f"{in_words(timedelta(seconds=report.eta_seconds))} left")
    if report.sweep.checked:
        parts.append(f"{report.sweep.checked:,} keys asked for, {report.sweep.deleted:,} deleted")
    if report.waits_for:
        parts.append(f"waits for {report.waits_for}")
    return ", ".join(parts) + "."


def estimate_line(report: SnapshotReport) -> str:
    """Describe what a scan of the table takes: items, read units, price, time."""
    units, price = report.estimated_read_units, report.estimated_price
    if units is None or price is None:
        return "The size of the table is unknown."
    limit = report.limit_units_per_second
    at_most = (
        f", {in_words(timedelta(seconds=units / limit))} at {limit:,.0f} read units a second"
        if limit
        else ", as fast as the table serves"
    )
    return (
        f"A consistent scan of {report.item_count or 0:,} items ({report.table_bytes or 0:,} bytes "
        f"as the service counted them in the last hours) takes about {units:,.0f} read units "
        f"(${price:,.2f} on demand in us-east-1){at_most}."
    )


def _rounded(number: float | None, digits: int) -> float | None:
    return None if number is None else round(number, digits)
