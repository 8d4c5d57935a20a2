"""Which parts of a listing a drain asks for, and when it asks again. Pure.

DescribeStream may be called ten times a second, for all streams of an account. A stream of one page
is listed whole by each drain: that is one call. A larger one is listed by a page at each drain, so
that it takes no more; what a drain can't wait for is asked for by itself, or by a hurried round:

* A shard that was read to its end and has no known child: its children are asked for at once, and
  again later, as a listing may lag. A shard may have two: who has one is asked once more.
* A parent that no listing has shown: it may be late, and is lost after ten minutes.
* A shard that the service does not know although it was listed as open.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from datazone_dagster.drain.shard_view import ShardView
from datazone_dagster.model.checkpoint import Checkpoint, ShardState
from datazone_dagster.model.shard import parents_in

WINDOW_SECONDS = 4.5
"""Time for which a part of a listing is not asked for again: ticks come every five seconds."""

CALLS_IN_A_WINDOW = 25
"""Most DescribeStream calls of one stream in that time: about half of what an account has."""

CHILD_CALLS = 20
"""Most shards whose children are asked for one by one in that time. If more have ended at once,
the newest pages of the listing show their children in fewer calls."""

ASKED_AGAIN_SECONDS = 5.0
ASKED_LATER = 3
LONGEST_WAIT_SECONDS = 600.0
"""Time after which a question is asked again, the factor by which it grows, and the longest one."""

CONFIRMED_TIMES = 2
"""Times that a shard is asked for its children before those found count as all."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a shard.

    Args:
        times: Number of times it was asked.
        due_seconds: Time at which it is asked again, on the monotonic clock, in seconds.
    """

    times: int
    due_seconds: float


Questions = Mapping[str, Asked]
"""Questions asked so far, by the id of their shard."""


def childless_shards(view: ShardView, checkpoint: Checkpoint) -> list[str]:
    """Return the listed shards that were read to their end and have no known child."""
    rows = checkpoint.rows_of_stream(view.stream.stream_arn).rows
    return [
        name
        for name in sorted(view.shards.keys() - view.parents - view.described().open_ids)
        if (row := rows.get(name)) is not None and row.state is ShardState.FINISHED
    ]


def unknown_parents(view: ShardView, checkpoint: Checkpoint) -> list[str]:
    """Return the parents of listed, unfinished shards that no listing has shown."""
    rows = checkpoint.rows_of_stream(view.stream.stream_arn).rows
    missing = view.parents - rows.keys() - view.shards.keys()
    if not missing:
        return []
    waiting = {
        parent
        for name, shard in view.shards.items()
        for parent in missing.intersection(parents_in(shard.parent_shard_id))
        if (row := rows.get(name)) is None or not row.is_done
    }
    return sorted(waiting)


def still_open(asked: Questions, names: Collection[str], *, confirmed: bool = False) -> Questions:
    """Return the questions that are still to be asked.

    Args:
        asked: Questions so far.
        names: Shards without an answer.
        confirmed: Whether an answer is asked for once more.
    """
    wanted = set(names)
    return {
        name: one
        for name, one in asked.items()
        if name in wanted or (confirmed and one.times < CONFIRMED_TIMES)
    }


def due(asked: Questions, names: Iterable[str], seconds: float, *, again: bool = True) -> list[str]:
    """Return the shards to ask for now, those that were never asked for first.

    Args:
        asked: Questions that are open.
        names: Shards without an answer.
        seconds: Time on the monotonic clock.
        again: Whether to ask for a shard a second time.
    """
    new = [name for name in names if name not in asked]
    return new + [name for name, one in asked.items() if again and one.due_seconds <= seconds]


def after_asking(asked: Questions, names: Iterable[str], seconds: float) -> Questions:
    """Return the questions once these shards were asked for, whatever the answer was."""
    after = dict(asked)
    for name in names:
        times = after[name].times if name in after else 0
        wait_seconds = min(ASKED_AGAIN_SECONDS * ASKED_LATER**times, LONGEST_WAIT_SECONDS)
        after[name] = Asked(times + 1, seconds + wait_seconds)
    return after
