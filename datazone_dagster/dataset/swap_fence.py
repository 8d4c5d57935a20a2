"""Fence of a rewrite of the table: runs of a dataset make way for it, as they were faster before.

Rebuilds, erasures and redrives raise one, and buckets that give columns wider types. It is a
property of the table, for a limited time and for the present generation: it ends with the swap of a
rebuild, and by itself if its process dies. What runs would have applied is in the change log. Of
two fences, the one that was raised first counts.

It only gives a rewrite the time to win a race: each commit checks by itself that nobody came first.
So anybody may lower the fence of a run that is over, also if its process wakes up later.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

from datazone_dagster.dataset.properties import generation_of
from datazone_dagster.dataset.settled_positions import settle_positions
from datazone_dagster.delta.commit import set_properties
from datazone_dagster.delta.table import Table
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.process.current_run import current_run

PROPERTY = "datazone.swap_fence"
"""Table property with the generation whose runs make way, and until when for which rebuild."""

ATTEMPTS = 50
"""Attempts at setting the property while runs commit first."""

COLUMNS, ERASURE, REDRIVE = "columns/", "erasure/", "redrive/"
"""Starts of the names of fences of buckets, erasures and redrives; a rebuild has a random id."""

FENCED_ATTEMPTS = 4
"""Attempts, of the longest so far, for which runs make way at a time, within these bounds."""

ATTEMPT_AND_HALF = 1.5
"""The same where an attempt renews no fence: one that ends before the attempt is no use."""

SHORTEST = timedelta(minutes=1)
LONGEST = timedelta(minutes=10)
"""Bounds of the fence: a rebuild whose process dies stops its dataset for no longer."""


class Fence(NamedTuple):
    """Until when runs of a dataset wait at most, what for, and for which run, if it is known."""

    until: datetime
    why: str
    name: str = ""
    run_id: str = ""


class MakesWayError(ConcurrentWriterError):
    """The table is about to be rewritten, and the run makes way for it."""


def length_of(longest_attempt: timedelta) -> timedelta:
    """Return for how long runs make way at a time. Pure."""
    return min(LONGEST, max(SHORTEST, FENCED_ATTEMPTS * longest_attempt))


def length_through(longest_attempt: timedelta) -> timedelta:
    """Return the same for an attempt that renews no fence: longer than the attempt. Pure."""
    return max(length_of(longest_attempt), ATTEMPT_AND_HALF * longest_attempt)


def raise_fence(table: Table, source: str, rebuild: str, until: datetime, now: datetime) -> None:
    """Make runs of a dataset wait until a time, or until it is rebuilt; renew a fence by that.

    Args:
        table: Table of the dataset.
        source: Name of its source.
        rebuild: Id of the rebuild that they wait for: others have fences of their own.
        until: When runs go on.
        now: The current time: fences that have ended are dropped.

    Raises:
        ConcurrentWriterError: Others committed first each time.
        StorageError: The store failed.
    """

    def added(at: Snapshot) -> Mapping[str, datetime]:
        standing = {one: end for one, end in _fences(at, source).items() if now < end}
        return {**standing, rebuild: until}

    _set(table, source, added, {rebuild: current_run()} if current_run() else {})


def lower_fence(table: Table, source: str, rebuild: str, run_id: str | None = None) -> None:
    """Let runs go on as far as a rebuild is concerned; errors as for `raise_fence`.

    Args:
        table: Table of the dataset.
        source: Name of its source.
        rebuild: Id of the rebuild.
        run_id: Only if this run raised the fence last: the next run of a bucket uses its name.
    """

    def others(at: Snapshot) -> Mapping[str, datetime]:
        fences, runs = _fences(at, source), _runs(at)
        if run_id is not None and runs.get(rebuild) != run_id:
            return fences
        return {one: end for one, end in fences.items() if one != rebuild}

    if others(table.at) != _fences(table.at, source):
        _set(table, source, others)


def fenced_until(table: Snapshot, source: str, now: datetime, own: str = "") -> datetime | None:
    """Return until when runs make way; None if they need not.

    Args:
        table: The dataset's table.
        source: Name of its source.
        now: The current time.
        own: Fence of the run itself: it makes way for those that were raised before only.
    """
    return max(_before(table, source, now, own).values(), default=None)


def standing_fence(table: Snapshot, source: str, now: datetime) -> Fence | None:
    """Return the last fence to end of those that runs make way for; None if there is none."""
    found = _before(table, source, now, "")
    if not found:
        return None
    name, until = max(found.items(), key=lambda one: one[1])
    return Fence(until, _reason(name), name, _runs(table).get(name, ""))


def make_way(table: Snapshot, uri: str, source: str, now: datetime, own: str = "") -> None:
    """Check that a run may apply something; arguments as for `fenced_until`.

    Raises:
        MakesWayError: A rebuild, a repair or wider columns come first.
    """
    found = _before(table, source, now, own)
    if found:
        name, until = max(found.items(), key=lambda one: one[1])
        raise MakesWayError(
            f"The dataset at {uri}: {_reason(name)}.",
            safe="Nothing of this attempt was written; the change log keeps the changes.",
            hint=f"Runs go on when it is done, or at {until:%Y-%m-%d %H:%M:%S} UTC.",
        )


def _reason(fence: str) -> str:
    if fence.startswith(COLUMNS):
        return f"bucket {fence.removeprefix(COLUMNS)} gives columns wider types"
    if fence.startswith(ERASURE):
        return "keys are being erased from it"
    if fence.startswith(REDRIVE):
        return "quarantined records are being redriven into it"
    return "a rebuild is about to be swapped in"


def begin_commit(table: Table, source: str, now: datetime, own: str = "") -> None:
    """Check that a run may commit, and settle the positions of a restored table before it does.

    Raises:
        MakesWayError: As in `make_way`.
        ConcurrentWriterError: As in `settle_positions`.
        StorageError: As in `settle_positions`.
    """
    make_way(table.at, table.uri, source, now, own)
    settle_positions(table, source)


def _before(table: Snapshot, source: str, now: datetime, own: str) -> dict[str, datetime]:
    """Return the fences that stand and that a run makes way for."""
    standing = {one: end for one, end in _fences(table, source).items() if now < end}
    names = list(standing)
    first = names[: names.index(own)] if own in standing else names
    return {one: standing[one] for one in first}


def _fences(table: Snapshot, source: str) -> dict[str, datetime]:
    """Return until when the fences of the present generation stand, by rebuild."""
    found = json.loads(table.configuration.get(PROPERTY) or "{}")
    if not found or found["generation"] != generation_of(table, source):
        return {}
    return {one: datetime.fromisoformat(end) for one, end in found.get("until_of", {}).items()}


def _runs(table: Snapshot) -> dict[str, str]:
    """Return the ids of the runs that raised fences, by fence; others are not of runs."""
    found = json.loads(table.configuration.get(PROPERTY) or "{}")
    return dict(found.get("run_of", {}))


def _set(
    table: Table,
    source: str,
    new: Callable[[Snapshot], Mapping[str, datetime]],
    raised_by: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Set the fences to those that the newest version asks for, some of them raised by runs."""
    for attempts_left in reversed(range(ATTEMPTS)):
        ends = {one: end.isoformat() for one, end in new(table.at).items()}
        runs = {one: run for one, run in {**_runs(table.at), **raised_by}.items() if one in ends}
        fences = {"generation": generation_of(table.at, source), "until_of": ends, "run_of": runs}
        try:
            set_properties(table, {PROPERTY: json.dumps(fences) if ends else ""})
        except ConcurrentWriterError:
            if not attempts_left:
                raise
            table.refresh()
        else:
            return
