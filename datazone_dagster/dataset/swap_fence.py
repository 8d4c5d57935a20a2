"""Fence of a rebuild: runs of a dataset make way for a swap that they were faster than repeatedly.

It is a property of the table, for a limited time and for the present generation: it ends with the
swap, and by itself if the rebuild dies. What runs would have applied is in the change log.
"""

from __future__ import annotations

import json
from datetime import datetime

from datazone_dagster.dataset.properties import generation_of
from datazone_dagster.dataset.settled_positions import settle_positions
from datazone_dagster.delta.commit import set_properties
from datazone_dagster.delta.table import Table
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.errors import ConcurrentWriterError

PROPERTY = "datazone.swap_fence"
"""Table property with the generation whose runs make way, and until when."""

ATTEMPTS = 50
"""Attempts at setting the property while runs commit first."""


class MakesWayError(ConcurrentWriterError):
    """A rebuild is about to be swapped in, and the run makes way for it."""


def raise_fence(table: Table, source: str, until: datetime) -> None:
    """Make runs of a dataset wait until a time, or until it is rebuilt.

    Raises:
        ConcurrentWriterError: Others committed first each time.
        StorageError: The store failed.
    """
    generation = generation_of(table.at, source)
    _set(table, json.dumps({"generation": generation, "until": until.isoformat()}))


def lower_fence(table: Table) -> None:
    """Let runs go on; errors as for `raise_fence`."""
    if table.properties.get(PROPERTY):
        _set(table, "")


def fenced_until(table: Snapshot, source: str, now: datetime) -> datetime | None:
    """Return until when runs make way; None if they need not."""
    found = json.loads(table.configuration.get(PROPERTY) or "{}")
    if not found or found["generation"] != generation_of(table, source):
        return None
    until = datetime.fromisoformat(found["until"])
    return until if now < until else None


def begin_commit(table: Table, source: str, now: datetime) -> None:
    """Check that a run may commit, and settle the positions of a restored table before it does.

    Raises:
        MakesWayError: A rebuild is about to be swapped in.
        ConcurrentWriterError: As in `settle_positions`.
        StorageError: As in `settle_positions`.
    """
    until = fenced_until(table.at, source, now)
    if until is not None:
        raise MakesWayError(
            f"The dataset at {table.uri}: a rebuild is about to be swapped in.",
            safe="Nothing of this attempt was written; the change log keeps the changes.",
            hint=f"Runs go on after the swap, or at {until:%Y-%m-%d %H:%M:%S} UTC.",
        )
    settle_positions(table, source)


def _set(table: Table, value: str) -> None:
    for attempts_left in reversed(range(ATTEMPTS)):
        try:
            set_properties(table, {PROPERTY: value})
        except ConcurrentWriterError:
            if not attempts_left:
                raise
            table.refresh()
        else:
            return
