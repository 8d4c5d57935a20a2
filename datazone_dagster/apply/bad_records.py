"""Changes that a dataset can't take, each with its reason, in the change log's columns.

Such a change is not a stream record, has no usable key, holds an image that is not DynamoDB's
JSON, or makes the function fail, with failures set to be quarantined.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.frame.item_columns import ItemColumns
from datazone_dagster.frame.plain import item_problem
from datazone_dagster.items.failure import DecodeFailure
from datazone_dagster.items.images import image_failures
from datazone_dagster.items.keys import key_column
from datazone_dagster.model.attributes import AttributeMapping
from datazone_dagster.model.column_names import EVENT_TIME, HIDDEN, KEY, VERSION, Log
from datazone_dagster.model.quarantine_policy import REASON_CHARS, image_reason, mistyped_key_reason
from datazone_dagster.text import shown


def keyed(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the changes with their hidden columns, and the rows without a usable key.

    The second table has the change log's columns; its `reason` describes the problem.
    """
    refused = rows.slice(0, 0)
    if rows[Log.REASON].null_count < len(rows):  # a filter copies even if every row passes
        malformed = pc.is_valid(rows[Log.REASON])
        refused, rows = rows.filter(malformed), rows.filter(pc.invert(malformed))
    keys, failures = key_column(rows[Log.KEYS])
    rows = (
        rows.append_column(KEY, keys)
        .append_column(VERSION, rows[Log.VERSION])
        .append_column(EVENT_TIME, rows[Log.EVENT_TIME])
    )
    if not failures:
        return rows, refused
    unkeyed = refused_rows(rows, {failure.row: failure.reason for failure in failures})
    return rows.filter(pc.is_valid(rows[KEY])), pa.concat_tables([refused, unkeyed])


def readable(
    changes: pa.Table, attributes: AttributeMapping, memory_limit_bytes: int
) -> tuple[pa.Table, pa.Table]:
    """Return the changes with readable images, and the others with a `reason`, as in `keyed`.

    Args:
        changes: A chunk with the hidden columns.
        attributes: Columns of `items()` so far: a key must be of its column's type.
        memory_limit_bytes: DuckDB's memory limit.
    """
    reasons: dict[int, str] = {}
    failures = chain(
        image_failures(changes, memory_limit_bytes),
        _item_failures(changes),
        _key_failures(attributes, changes),
    )
    for failure in failures:
        reasons.setdefault(failure.row, failure.reason)
    return without(changes, reasons), refused_rows(changes, reasons)


def _item_failures(changes: pa.Table) -> Iterator[DecodeFailure]:
    """Yield the rows with an image that is JSON but not an item. Slow: checks row by row."""
    for column, name in ((Log.OLD_IMAGE, "old image"), (Log.NEW_IMAGE, "new image")):
        for row, text in enumerate(changes[column].to_pylist()):
            problem = None if text is None else item_problem(text)
            if problem is not None:
                yield DecodeFailure(row, image_reason(name, problem))


def _key_failures(attributes: AttributeMapping, changes: pa.Table) -> Iterator[DecodeFailure]:
    columns = ItemColumns(attributes, frozenset())
    for row, text in enumerate(changes[Log.KEYS].to_pylist()):
        kinds = [(name, next(iter(typed))) for name, typed in json.loads(text).items()]
        mistyped = columns.grow_keys(kinds)
        if mistyped is not None:
            yield DecodeFailure(row, mistyped_key_reason(mistyped))


def without(changes: pa.Table, rows: Collection[int]) -> pa.Table:
    """Return the changes without these row numbers."""
    return changes.filter(pa.array([row not in rows for row in range(len(changes))], pa.bool_()))


def refused_rows(changes: pa.Table, reasons: Mapping[int, str]) -> pa.Table:
    """Return these rows in the change log's columns, each with its reason."""
    rows = sorted(reasons)
    refused = changes.take(pa.array(rows, pa.int64())).drop_columns(list(HIDDEN))
    texts = pa.array([shown(reasons[row], 2 * REASON_CHARS) for row in rows], pa.string())
    return refused.set_column(refused.column_names.index(Log.REASON), Log.REASON, texts)
