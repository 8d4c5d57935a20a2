"""The latest change of each key, found without looking at anything but keys and versions. Pure."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def latest_rows(keys: pa.ChunkedArray | pa.Array, versions: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The rows that hold the highest version of their key, one per key, in their order.

    The change log is read oldest first, so the last row of a key is nearly always its
    highest; that is checked against every row, and sorted only where it does not hold
    (rows of a scan between those of the stream). About 0.3 CPU seconds per million rows.

    Args:
        keys: One text per row, none null. Equal keys are equal texts.
        versions: `_dz_version` of the row.
    """
    codes = _whole(keys).dictionary_encode().indices
    numbers = _whole(versions)
    last = _last_places(codes)
    if pc.any(pc.greater(numbers, numbers.take(last.take(codes)))).as_py():
        order = pc.sort_indices(numbers)  # stable: of equal versions the last row counts
        last = order.take(_last_places(codes.take(order)))
    return last.take(pc.sort_indices(last))


def _last_places(codes: pa.Array) -> pa.Array:
    """Where each code stands last, by code. Codes are counted from 0 without gaps."""
    ones = pa.repeat(pa.scalar(1, pa.int64()), len(codes))
    places = pa.table({"code": codes, "place": pc.subtract(pc.cumulative_sum(ones), 1)})
    last = places.group_by("code").aggregate([("place", "max")]).sort_by("code")
    return _whole(last["place_max"])


def _whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
