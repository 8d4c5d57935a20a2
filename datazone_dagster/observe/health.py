"""Health of a stream, judged by its last drain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from datazone_dagster.errors import (
    DatazoneError,
    ServiceUnavailableError,
    StoreError,
    StoreUnavailableError,
    ThrottledError,
)
from datazone_dagster.model.report import DrainReport, Gap
from datazone_dagster.model.service_limits import RETENTION
from datazone_dagster.model.set_state import SetState
from datazone_dagster.observe.lag import in_words
from datazone_dagster.observe.level import Level
from datazone_dagster.observe.set_health import sets_behind
from datazone_dagster.text import shortened

TRANSIENT = (ServiceUnavailableError, ThrottledError, StoreUnavailableError)
"""Errors that usually pass without action: warnings until they last for `TRANSIENT_FOR`."""

TRANSIENT_FOR = timedelta(minutes=1)

_SHOWN = 5
_TEXT_CHARS = 2_000

LOW_HEADROOM = timedelta(hours=6)

_COARSE = (
    "The times of changes have milliseconds only, and Kinesis delivers in any order: of two "
    "changes of one item in a millisecond the wrong one may win. Set the precision: aws dynamodb "
    "update-kinesis-streaming-destination --update-kinesis-streaming-configuration "
    "ApproximateCreationDateTimePrecision=MICROSECOND."
)

StreamState = Literal["OK", "BEHIND", "FAILING", "STORAGE", "GAP"]


@dataclass(frozen=True, slots=True)
class StreamHealth:
    """Result of the `stream_health` check of a change log.

    `state` is the worst that applies: `GAP` while a gap is open, `STORAGE` while the store of the
    lakehouse fails, `FAILING` while a shard can't be read, `BEHIND` while unread changes are close
    to being trimmed, or a set of shards is behind. `headroom_seconds` is the time until DynamoDB
    may trim the oldest unread change; None if unknown. `retention_seconds` is the time that the
    stream keeps a change. `sets_behind` counts the sets of drain runs that are behind; None without
    such runs.
    """

    level: Level
    reason: str
    state: StreamState = "OK"
    headroom_seconds: float | None = None
    missing_seconds: float = 0.0
    gaps: int = 0
    failing_shards: int = 0
    shards_open: int | None = None
    shards_unread: int | None = None
    retention_seconds: float = RETENTION.total_seconds()
    sets_behind: int | None = None


def health_of_report(
    report: DrainReport, *, now: datetime, caught_up_at: datetime | None
) -> StreamHealth:
    """Return the health after a drain that succeeded.

    Open gaps are errors; failing shards and a headroom below 6 hours are warnings. Shards that
    fail for longer than a minute are an error too.
    """
    sentences = []
    level = Level.OK
    state: StreamState = "OK"
    retention = report.arrival.retention
    headroom = _headroom(report.began_at or now, report.oldest_unread_at, retention)
    if headroom < LOW_HEADROOM:
        level, state = Level.WARN, "BEHIND"
        sentences.append(
            f"The oldest unread change may be trimmed in {in_words(headroom)}: the stream is read "
            "slower than it is written. Check the duration of drains and failing shards."
        )
    if report.arrival.is_coarse:
        level = Level.WARN
        sentences.append(_COARSE)
    if report.shard_errors:
        state = "FAILING"
        level = Level.ERROR if _lasts(now, caught_up_at) else Level.WARN
        errors = "; ".join(f"{shard}: {text}" for shard, text in report.shard_errors[:_SHOWN])
        sentences.append(f"{len(report.shard_errors)} shards can't be read. {errors}")
    if report.gaps:
        level, state = Level.ERROR, "GAP"
        sentences.append(f"{describe_gaps(report.gaps)} {ways_out(report.source)}")
    if not sentences:
        progress = "read to their end" if report.caught_up else "not read to their end yet"
        sentences.append(f"{report.shards_open} open shards, {progress}.")
    health = StreamHealth(
        level,
        shortened(" ".join(sentences), _TEXT_CHARS),
        state=state,
        headroom_seconds=headroom.total_seconds(),
        missing_seconds=missing_seconds(report.gaps),
        gaps=len(report.gaps),
        failing_shards=len(report.shard_errors),
        shards_open=report.shards_open,
        shards_unread=max(0, report.shards_unfinished - report.shards_open),
        retention_seconds=retention.total_seconds(),
    )
    return with_sets(health, report.source, report.sets, now)


def with_sets(
    health: StreamHealth, source: str, sets: Sequence[SetState], now: datetime
) -> StreamHealth:
    """Return the health with that of the sets of shards that drain runs read, if there are any."""
    if not sets:
        return health
    behind = sets_behind(source, sets, now)
    if not behind.count:
        return replace(health, sets_behind=0)
    return replace(
        health,
        level=health.level if health.level is Level.ERROR else Level.WARN,
        reason=shortened(f"{health.reason} {behind.text}", _TEXT_CHARS),
        state="BEHIND" if health.state == "OK" else health.state,
        sets_behind=behind.count,
    )


def health_of_error(
    error: DatazoneError,
    *,
    now: datetime,
    caught_up_at: datetime | None,
    never_read: bool = False,
) -> StreamHealth:
    """Return the health after a drain that failed entirely.

    If the stream was never read to its end, `caught_up_at` is the time of the first attempt.
    """
    transient = isinstance(error, TRANSIENT) and not _lasts(now, caught_up_at)
    since = ""
    if caught_up_at is not None and now > caught_up_at:
        span = in_words(now - caught_up_at)
        since = (
            f" The stream was never read to its end, {span} after the first attempt."
            if never_read
            else f" The stream was last read to its end {span} ago."
        )
    return StreamHealth(
        Level.WARN if transient else Level.ERROR,
        f"{shortened(str(error), _TEXT_CHARS)}{since}",
        state="STORAGE" if isinstance(error, StoreError) else "FAILING",
        headroom_seconds=(
            None if caught_up_at is None else _headroom(now, caught_up_at).total_seconds()
        ),
    )


def describe_gaps(gaps: Sequence[Gap]) -> str:
    """Describe the loss: the seconds in total, then each shard."""
    lost = "; ".join(describe_gap(gap) for gap in gaps[:_SHOWN])
    more = f" (and {len(gaps) - _SHOWN} more)" if len(gaps) > _SHOWN else ""
    unknown = any(gap.missing_seconds is None for gap in gaps)
    span = f"{'more than' if unknown else 'up to'} {missing_seconds(gaps):,.0f} s"
    return f"Changes of {span} are missing, lost before they could be landed: {lost}{more}."


def ways_out(source: str) -> str:
    """Return the instructions for a gap."""
    return (
        "Datasets of this source are incomplete until the gap is repaired or accepted. To repair "
        f"it, start the job resync_{source}, or run: datazone-dagster resync {source}. If the "
        "datasets may stay as they are, accept it: "
        f"datazone-dagster accept-gap {source} --why '...'."
    )


def missing_seconds(gaps: Iterable[Gap]) -> float:
    """Return the total time span of the gaps in seconds, overlaps counted once."""
    spans = sorted((gap.since, gap.until) for gap in gaps if gap.since and gap.until)
    seconds, reached = 0.0, None
    for since, until in spans:
        start = since if reached is None else max(since, reached)
        seconds += max(0.0, (until - start).total_seconds())
        reached = until if reached is None else max(reached, until)
    return seconds


def headroom_seconds(report: DrainReport, now: datetime) -> float:
    """Return the seconds until DynamoDB may trim the oldest change that a drain left unread."""
    at = report.began_at or now
    return _headroom(at, report.oldest_unread_at, report.arrival.retention).total_seconds()


def _headroom(
    now: datetime, oldest_unread_at: datetime | None, retention: timedelta = RETENTION
) -> timedelta:
    if oldest_unread_at is None:
        return retention
    return max(timedelta(0), min(retention, retention - (now - oldest_unread_at)))


def describe_gap(gap: Gap) -> str:
    """Describe a gap: shard, reason and bounds."""
    bounds = []
    if gap.after_sequence_number is not None:
        bounds.append(f"after sequence number {gap.after_sequence_number}")
    if gap.since is not None:
        bounds.append(f"from {gap.since:%Y-%m-%d %H:%M:%S} UTC")
    if gap.until is not None:
        bounds.append(f"to {gap.until:%Y-%m-%d %H:%M:%S} UTC")
    if gap.missing_seconds is not None:
        bounds.append(f"{gap.missing_seconds:,.0f} s")
    return f"shard {gap.shard_id} ({gap.reason}{': ' if bounds else ''}{', '.join(bounds)})"


def _lasts(now: datetime, caught_up_at: datetime | None) -> bool:
    return caught_up_at is not None and now - caught_up_at >= TRANSIENT_FOR
