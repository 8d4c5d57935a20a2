"""Health of the sets of shards that drain runs read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from datazone_dagster.model.checkpoint import LATEST_RECORDED_EVERY
from datazone_dagster.model.set_state import SetState
from datazone_dagster.observe.lag import in_words

SET_BEHIND = timedelta(minutes=2)
"""Time after the last read to the latest positions from which on a set of shards is behind. A run
has the same time for its first one."""

UNREAD_LONG = LATEST_RECORDED_EVERY + timedelta(minutes=5)
"""Age of unread changes from which on a set is behind, however new its run is: runs come and go. An
idle shard is recorded as read only now and then."""

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class SetsBehind:
    """Sets without a run, and sets that are not read to the latest position.

    Args:
        count: Number of them.
        text: Which they are, and what to do; empty if there are none.
    """

    count: int
    text: str


def sets_behind(source: str, sets: Sequence[SetState], now: datetime) -> SetsBehind:
    """Return the sets of a source that are behind.

    Args:
        source: Name of the source.
        sets: Its sets; those without shards have nothing to read.
        now: Current time.
    """
    of_sets = [one for one in sets if one.shards]
    alone = [one.name for one in of_sets if not (one.has_run or one.is_between_runs)]
    late = [
        f"{one.name} by {in_words(now - one.read_at)}"
        for one in of_sets
        if one.has_run and one.read_at is not None and now - one.read_at > SET_BEHIND
    ]
    never = [
        f"{one.name} (its run was requested {in_words(now - one.run_since)} ago{_unread(one, now)})"
        for one in of_sets
        if one.run_since is not None and _was_never_read(one, one.run_since, now)
    ]
    job = f"drain_shards_{source}"
    parts = []
    if alone:
        parts.append(
            f"No run reads {len(alone)} of {len(sets)} sets: {_first(alone)}. Each gets one within "
            "a minute if Dagster's queue and launcher have room: look at the runs of the job "
            f"{job}."
        )
    if late:
        parts.append(
            f"Behind the latest position: {_first(late)}. If that goes on, raise drain_workers, or "
            "look at the shards that fail."
        )
    if never:
        parts.append(
            f"Never read to the latest position by the present run: {_first(never)}. Nothing is "
            "lost while the check headroom passes. If that time grows, raise drain_workers; if the "
            f"run has not begun or lands nothing, look at its log, job {job}."
        )
    return SetsBehind(len(alone) + len(late) + len(never), " ".join(parts))


def _was_never_read(one: SetState, run_since: datetime, now: datetime) -> bool:
    """Return whether a run had time enough for a first read to the latest positions."""
    if not one.has_run or one.read_at is not None:
        return False
    is_old = one.unread_since is not None and now - one.unread_since > UNREAD_LONG
    return is_old or now - run_since > SET_BEHIND


def _unread(one: SetState, now: datetime) -> str:
    if one.unread_since is None:
        return ""
    return f", its oldest unread change up to {in_words(now - one.unread_since)}"


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
