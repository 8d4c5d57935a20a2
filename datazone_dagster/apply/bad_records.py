"""Changes that a dataset can't take, each with its reason, in the change log's columns.

They are no stream records, have no usable key, hold an image that is not DynamoDB's JSON, or
the function fails on them and is allowed to.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.frame.item_columns import ItemColumns
from datazone_dagster.frame.plain import item_problem
from datazone_dagster.items.failure import DecodeFailure
from datazone_dagster.items.images import image_failures
from datazone_dagster.items.keys import key_column
from datazone_dagster.model.attributes import AttributeMapping
from datazone_dagster.model.column_names import EVENT_TIME, HIDDEN, KEY, VERSION, Log

FUNCTION_FAILED = "the function failed: "
"""How the reason of a change begins that the function failed on."""


def keyed(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The changes with their hidden columns, and the rows that have no usable key.

    The second table keeps the change log's columns; its `reason` says what is wrong.
    """
    refused = rows.slice(0, 0)
    if rows[Log.REASON].null_count < len(rows):  # a filter that keeps everything copies it
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


def readable(changes: pa.Table, attributes: AttributeMapping) -> tuple[pa.Table, pa.Table]:
    """The changes whose images can be read, and the others with a `reason`, as `keyed`.

    Args:
        changes: A chunk with the hidden columns.
        attributes: The columns of `items()` so far: a key has to be of its column's type.
    """
    reasons: dict[int, str] = {}
    failures = (image_failures, _item_failures, partial(_key_failures, attributes))
    for failure in (failure for of in failures for failure in of(changes)):
        reasons.setdefault(failure.row, failure.reason)
    return without(changes, reasons), refused_rows(changes, reasons)


def _item_failures(changes: pa.Table) -> Iterator[DecodeFailure]:
    """The rows with an image that is JSON, but no item: looked at one by one, which is slow."""
    for column, words in ((Log.OLD_IMAGE, "old image"), (Log.NEW_IMAGE, "new image")):
        for row, text in enumerate(changes[column].to_pylist()):
            problem = None if text is None else item_problem(text)
            if problem is not None:
                yield DecodeFailure(row, f"the {words} has {problem}")


def _key_failures(attributes: AttributeMapping, changes: pa.Table) -> Iterator[DecodeFailure]:
    columns = ItemColumns(attributes, frozenset())
    for row, text in enumerate(changes[Log.KEYS].to_pylist()):
        kinds = [(name, next(iter(typed))) for name, typed in json.loads(text).items()]
        odd = columns.grow_keys(kinds)
        if odd is not None:
            yield DecodeFailure(row, f"the key {odd!r} is of another type than its column")


def without(changes: pa.Table, rows: Collection[int]) -> pa.Table:
    """The changes but for these row numbers."""
    return changes.filter(pa.array([row not in rows for row in range(len(changes))], pa.bool_()))


def refused_rows(changes: pa.Table, reasons: Mapping[int, str]) -> pa.Table:
    """These rows as the change log has them, each with its reason."""
    rows = sorted(reasons)
    refused = changes.take(pa.array(rows, pa.int64())).drop_columns(list(HIDDEN))
    texts = pa.array([reasons[row] for row in rows], pa.string())
    return refused.set_column(refused.column_names.index(Log.REASON), Log.REASON, texts)
