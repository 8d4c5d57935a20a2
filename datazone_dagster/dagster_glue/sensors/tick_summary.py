"""The line that Dagster shows for a tick of the drain sensor."""

from __future__ import annotations

from datazone_dagster.model.report import DrainReport


def tick_summary(report: DrainReport | None, *, told_to_end: bool = False) -> str:
    """Return what a tick did, in one line.

    Args:
        report: Report of its drain; None: the drain failed.
        told_to_end: Whether its process was told to end, so that it reads no further.
    """
    if report is None:
        return "The drain failed"
    parts = []
    if report.batch is not None:
        parts.append(f"read {counted(report.records, 'record')} in {batches_text(report).lower()}")
    if report.lost_race:
        parts.append("another drain committed first")
    if told_to_end and not report.caught_up:
        parts.append("reads no further, as its process was told to end")
    else:
        parts.append("caught up" if report.caught_up else "more to read")
    parts.append(f"{counted(report.shards_open, 'shard')} open")
    if report.shard_errors:
        parts.append(f"{counted(len(report.shard_errors), 'shard')} failing")
    if report.gaps:
        parts.append(f"{counted(len(report.gaps), 'gap')} open")
    text = ", ".join(parts)
    return text[0].upper() + text[1:]


def batches_text(report: DrainReport) -> str:
    """Return the numbers of the batches of a tick."""
    if report.batches <= 1 or report.batch is None:
        return f"Batch {report.batch}"
    return f"Batches {report.batch - report.batches + 1} to {report.batch}"


def counted(count: int, noun: str) -> str:
    """Return a number of things, in words."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
