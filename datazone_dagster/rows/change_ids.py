"""Identity of a change: the version and the key of its item."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.model.column_names import KEY, VERSION


def change_ids(rows: pa.Table) -> pa.ChunkedArray:
    """Return version and key as one text per row, unique per change: all versions have one length.

    Args:
        rows: Table with the key and the version column.
    """
    return pc.binary_join_element_wise(rows[VERSION], rows[KEY], "")


def are_among(rows: pa.Table, others: pa.Table) -> pa.ChunkedArray:
    """Return per row whether `others` has a row of the same change."""
    return pc.is_in(change_ids(rows), value_set=change_ids(others))
