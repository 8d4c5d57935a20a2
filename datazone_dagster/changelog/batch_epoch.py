"""Epoch of a batch, also of one whose records say no version.

A record that could not be parsed may have no order to read. Alone in its batch, it has the epoch of
the batches around it, if they have the same: epochs never go down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.changelog.landed_notes import landed_in
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.version import split_version

Read = Callable[[int, int, Sequence[str]], Iterator[pa.Table]]
"""Reads columns of the batches in a range, whose start is exclusive."""

_COLUMNS = (Log.BATCH, Log.VERSION)

NEAREST_BATCHES = 64
"""Batches on either side that are looked at first; each further look takes four times as many."""


def epoch_of(
    batch: int, removed: int, head: int, notes: Iterable[Mapping[str, Any]], read: Read
) -> int | None:
    """Return the epoch of a batch; None if nothing says it, or not for sure.

    Args:
        batch: Number of the batch.
        removed: Last batch that was removed from the change log; 0 if none was.
        head: Number of the last batch.
        notes: Notes of the commits.
        read: Reads the change log.

    Raises:
        StorageError: The store failed.
    """
    own = _highest(read(batch - 1, batch, _COLUMNS))
    if own is not None:
        return own
    noted = [one.epoch for one in landed_in(notes, batch - 1, batch) or ()]
    if noted:
        return max(noted)
    before = _first(
        _highest(read(max(removed, batch - 1 - reach), batch - 1, _COLUMNS))
        for reach in _reaches(batch - 1 - removed)
    )
    if before is None and not removed:
        before = 1
    after = _first(
        _highest(read(batch, min(head, batch + reach), _COLUMNS))
        for reach in _reaches(head - batch)
    )
    return before if before == after else None


def _highest(tables: Iterable[pa.Table]) -> int | None:
    found = [pc.max(rows[Log.VERSION]) for rows in tables]
    version = max((one.as_py() for one in found if one.is_valid), default=None)
    return None if version is None else split_version(version)[0]


def _reaches(most: int) -> Iterator[int]:
    """Yield numbers of batches to look at on one side, up to all that there are."""
    reach = NEAREST_BATCHES
    while reach < most:
        yield reach
        reach *= 4
    if most > 0:
        yield most


def _first(found: Iterable[int | None]) -> int | None:
    return next((one for one in found if one is not None), None)
