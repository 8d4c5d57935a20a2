"""The latest change of each key, found without looking at anything but keys and versions. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_RowPositions = np.ndarray[Any, np.dtype[np.int64]]


def only_latest(
    rows: pa.Table, keys: pa.ChunkedArray | pa.Array, versions: pa.ChunkedArray | pa.Array
) -> pa.Table:
    """The rows that hold the highest version of their key; not copied if that is each of them."""
    places = latest_rows(keys, versions)
    return rows if len(places) == len(rows) else rows.take(places)


def latest_rows(keys: pa.ChunkedArray | pa.Array, versions: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The rows that hold the highest version of their key, one per key, in their order.

    The change log is read oldest first, so the last row of a key is nearly always its
    highest; that is checked against every other row, and sorted only where it does not hold
    (rows of a scan between those of the stream). About 0.2 CPU seconds per million rows.

    Args:
        keys: One text per row, none null. Equal keys are equal texts.
        versions: `_dz_version` of the row.
    """
    codes = np.asarray(_whole(keys).dictionary_encode().indices)
    count = int(codes.max()) + 1 if len(codes) else 0
    if count == len(codes):
        return pa.array(np.arange(count))
    numbers = _whole(versions)
    last = _last_places(codes, count)
    if _is_outrun(numbers, last, codes):
        order = np.asarray(pc.sort_indices(numbers))  # stable: of equal versions the last row
        last = order[_last_places(codes[order], count)]
    return pa.array(np.sort(last).astype(np.int64))


def _last_places(codes: _RowPositions, count: int) -> _RowPositions:
    """Where each code stands last, by code. Codes are counted from 0 without gaps."""
    last = np.empty(count, np.int64)
    last[codes] = np.arange(len(codes))  # of an index that repeats, the last value stays
    return last


def _is_outrun(versions: pa.Array, last: _RowPositions, codes: _RowPositions) -> bool:
    """Whether a row has a higher version than the last one of its key."""
    others = np.ones(len(codes), bool)
    others[last] = False
    earlier = np.flatnonzero(others)
    theirs = versions.take(pa.array(earlier))
    found = pc.any(pc.greater(theirs, versions.take(pa.array(last[codes[earlier]]))))
    return bool(found.as_py())


def _whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
