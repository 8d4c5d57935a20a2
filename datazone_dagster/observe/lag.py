"""The lag of a dataset behind its DynamoDB table.

A change waits in one of two places: in the change log, not yet applied, or in the stream,
not yet landed. The first has an event time. The second can't be seen, but it can't be older
than the last drain that read every shard to its latest position. So an idle stream, drained
every few seconds, is never late, and a stuck one is late from the moment it got stuck.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from datazone_dagster.model.key_bucket import KeyBucket
from datazone_dagster.observe.level import Level

WARN_AFTER = timedelta(minutes=1)

DRAIN_GRACE = timedelta(seconds=60)
"""Age up to which a drain counts as current. What is known of it is from the end of the last tick:
one of an idle stream listens for 38 s, and the next one starts 5 s later. The rest is for load."""


@dataclass(frozen=True, slots=True)
class LagStatus:
    """The lag of a dataset, its level and the reason.

    `unapplied_seconds` is the age of the oldest change in the change log that is not in the
    dataset. `unlanded_seconds` is the time since every shard was last read to its latest
    position. `lag_seconds` is the larger of the two. None is negative. `pending_records` counts the
    records of the pending batches. Every change made before `complete_through` is in the dataset,
    but for gaps; None if the time is not known. `buckets` has the position of each bucket.
    `is_first_backlog` means that the level is a warning only because the dataset is new.
    """

    level: Level
    reason: str
    lag_seconds: float
    unapplied_seconds: float
    unlanded_seconds: float
    pending_batches: int
    position: int
    head_batch: int
    pending_records: int = 0
    complete_through: datetime | None = None
    buckets: Mapping[str, int] = field(default_factory=dict)
    is_first_backlog: bool = False

    def of_buckets(self, positions: Mapping[KeyBucket, int]) -> LagStatus:
        """Return the lag with the positions of the buckets; the reason names the last one."""
        named = {bucket.name: position for bucket, position in positions.items()}
        last = min(positions, key=lambda bucket: (positions[bucket], bucket.number))
        behind = sum(position < self.head_batch for position in positions.values())
        if not self.pending_batches or not behind:
            return replace(self, buckets=named)
        reason = (
            f"{self.reason} {behind} of {last.of} buckets are behind; {last.name} is the last, at "
            f"batch {positions[last]} of {self.head_batch}."
        )
        return replace(self, reason=reason, buckets=named)


def lag_status(
    *,
    now: datetime,
    max_lag: timedelta,
    position: int,
    head_batch: int,
    oldest_unapplied_event_time: datetime | None,
    caught_up_at: datetime | None,
    never_read: bool = False,
    pending_records: int = 0,
) -> LagStatus:
    """Return the lag of one dataset.

    Args:
        now: The current time, timezone aware.
        max_lag: Lag from which the level is `ERROR`; from one minute on it is `WARN`.
        position: The last batch in the dataset.
        head_batch: The last batch in the change log.
        oldest_unapplied_event_time: Oldest event time of the batches after `position`; None if
            unknown.
        caught_up_at: Time of the last drain that read every shard to its latest position; None
            if unknown.
        never_read: Whether there was no such drain yet; `caught_up_at` is the time of the first
            attempt then.
        pending_records: Number of records in the batches after `position`.
    """
    pending = max(0, head_batch - position)
    unapplied = timedelta(0)
    if pending and oldest_unapplied_event_time is not None:
        unapplied = max(timedelta(0), now - oldest_unapplied_event_time)
    unlanded = timedelta(0)
    if caught_up_at is not None and now - caught_up_at > DRAIN_GRACE:
        unlanded = now - caught_up_at
    lag = max(unapplied, unlanded)
    return LagStatus(
        level=_level(lag, max_lag),
        reason=_reason(unapplied, unlanded, pending, caught_up_at, never_read=never_read),
        lag_seconds=lag.total_seconds(),
        unapplied_seconds=unapplied.total_seconds(),
        unlanded_seconds=unlanded.total_seconds(),
        pending_batches=pending,
        position=position,
        head_batch=head_batch,
        pending_records=pending_records if pending else 0,
        complete_through=_complete_through(
            None if never_read else caught_up_at, oldest_unapplied_event_time if pending else None
        ),
    )


def _complete_through(
    caught_up_at: datetime | None, oldest_unapplied: datetime | None
) -> datetime | None:
    """Return the earlier of the two: of what is not landed, and of what is landed and waits."""
    if caught_up_at is None or oldest_unapplied is None:
        return caught_up_at
    return min(caught_up_at, oldest_unapplied)


def _level(lag: timedelta, max_lag: timedelta) -> Level:
    if lag >= max_lag:
        return Level.ERROR
    return Level.WARN if lag >= WARN_AFTER else Level.OK


def _reason(
    unapplied: timedelta,
    unlanded: timedelta,
    pending: int,
    caught_up_at: datetime | None,
    *,
    never_read: bool,
) -> str:
    sentences = []
    if unlanded and caught_up_at is not None and never_read:
        sentences.append(
            f"The stream was never read to its end, {in_words(unlanded)} after the first attempt "
            f"at {caught_up_at:%Y-%m-%d %H:%M:%S} UTC: its changes are not landed."
        )
    elif unlanded and caught_up_at is not None:
        sentences.append(
            f"The stream was last read to its end {in_words(unlanded)} ago, at "
            f"{caught_up_at:%Y-%m-%d %H:%M:%S} UTC: changes since then may not be landed."
        )
    if pending:
        batches = "1 batch waits" if pending == 1 else f"{pending} batches wait"
        sentences.append(
            f"{batches} to be applied, the oldest change is {in_words(unapplied)} old."
            if unapplied
            else f"{batches} to be applied."
        )
    return " ".join(sentences) or "Every landed change is in the dataset."


def in_words(span: timedelta) -> str:
    """Format a time span as `2 d 3 h`, `5 min 10 s` or `42 s`."""
    seconds = int(span.total_seconds())
    days, seconds = divmod(seconds, 86_400)
    hours, seconds = divmod(seconds, 3_600)
    minutes, seconds = divmod(seconds, 60)
    units = ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s"))
    shown = [f"{count} {unit}" for count, unit in units if count]
    return " ".join(shown[:2]) or "0 s"
