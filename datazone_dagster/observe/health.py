"""Whether a stream is read as it should be, judged by its last drain."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from datazone_dagster.errors import DatazoneError, ServiceUnavailableError, ThrottledError
from datazone_dagster.model.report import DrainReport, Gap
from datazone_dagster.observe.lag import in_words
from datazone_dagster.observe.level import Level

TRANSIENT = (ServiceUnavailableError, ThrottledError)
"""What passes by itself; an error only if it lasts."""

TRANSIENT_FOR = timedelta(minutes=1)

_SHOWN = 5
_TEXT_CHARS = 2_000


@dataclass(frozen=True, slots=True)
class StreamHealth:
    """What the `stream_health` check of a change log says."""

    level: Level
    reason: str
    gaps: int = 0
    failing_shards: int = 0
    shards_open: int | None = None


def health_of_report(
    report: DrainReport, *, now: datetime, caught_up_at: datetime | None
) -> StreamHealth:
    """The health after a drain that went through: open gaps are errors, failing shards warn.

    Shards that fail for longer than a minute are an error too.
    """
    parts = []
    level = Level.OK
    if report.shard_errors:
        level = Level.ERROR if _lasts(now, caught_up_at) else Level.WARN
        errors = "; ".join(f"{shard}: {text}" for shard, text in report.shard_errors[:_SHOWN])
        parts.append(f"{len(report.shard_errors)} shards can't be read. {errors}")
    if report.gaps:
        level = Level.ERROR
        lost = "; ".join(describe_gap(gap) for gap in report.gaps[:_SHOWN])
        more = f" (and {len(report.gaps) - _SHOWN} more)" if len(report.gaps) > _SHOWN else ""
        parts.append(
            f"Changes were lost before they could be landed: {lost}{more}. Datasets of this "
            "source are incomplete until it is read again in full, or the gap is accepted."
        )
    if not parts:
        tip = "read to their end" if report.caught_up else "not read to their end yet"
        parts.append(f"{report.shards_open} open shards, {tip}.")
    return StreamHealth(
        level,
        " ".join(parts)[:_TEXT_CHARS],
        gaps=len(report.gaps),
        failing_shards=len(report.shard_errors),
        shards_open=report.shards_open,
    )


def health_of_error(
    error: DatazoneError, *, now: datetime, caught_up_at: datetime | None
) -> StreamHealth:
    """The health after a drain that failed as a whole."""
    passing = isinstance(error, TRANSIENT) and not _lasts(now, caught_up_at)
    since = (
        f" The stream was last read to its end {in_words(now - caught_up_at)} ago."
        if caught_up_at is not None and now > caught_up_at
        else ""
    )
    return StreamHealth(
        Level.WARN if passing else Level.ERROR, f"{str(error)[:_TEXT_CHARS]}{since}"
    )


def describe_gap(gap: Gap) -> str:
    """A gap by shard, reason and bounds."""
    bounds = []
    if gap.after_sequence_number is not None:
        bounds.append(f"after sequence number {gap.after_sequence_number}")
    if gap.since is not None:
        bounds.append(f"from {gap.since:%Y-%m-%d %H:%M:%S} UTC")
    if gap.until is not None:
        bounds.append(f"to {gap.until:%Y-%m-%d %H:%M:%S} UTC")
    return f"shard {gap.shard_id} ({gap.reason}{': ' if bounds else ''}{', '.join(bounds)})"


def _lasts(now: datetime, caught_up_at: datetime | None) -> bool:
    return caught_up_at is not None and now - caught_up_at >= TRANSIENT_FOR
