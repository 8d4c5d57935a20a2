"""Check of `@transform(row_wise=True)`: the rows of some changes are those of their parts.

A function that keeps the promise can be called on the latest change of each key, some thousand at
a time. One that does not would give other rows from one run to the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from datazone_dagster.apply.function_errors import SAFE
from datazone_dagster.apply.parts import halves
from datazone_dagster.errors import ResultError, TransformError
from datazone_dagster.model.column_names import HIDDEN, KEY
from datazone_dagster.text import shown

CHECKED_CHANGES = 500
"""The function is called on so many changes at once, and on each half of them."""

_KEYS_SHOWN = 5

_HINT = (
    "Compute each row from its own change and from nothing else, or leave out row_wise=True: the "
    "function then gets every change of a chunk at once. Sums, ranks and windows over items belong "
    "in an asset downstream, which reads the dataset."
)

Rows = Mapping[str, pa.Table]
"""Rows of a function by output."""


def check_row_wise(
    name: str, changes: pa.Table, evaluate: Callable[[pa.Table], Rows], location: str
) -> None:
    """Check that a function gives the same rows for changes together as apart, in any order.

    Columns that differ between two calls on the same changes, such as a time of loading, do not
    count.

    Args:
        name: Name of the transform.
        changes: Some changes; fewer than two show nothing.
        evaluate: Calls the function on some of them.
        location: Origin of the changes, for the error.

    Raises:
        ResultError: The function gives other rows, or fails on a half.
        TransformError: The function fails on the changes together.
    """
    changes = changes.slice(0, CHECKED_CHANGES)
    if len(changes) < 2:
        return
    together = evaluate(changes)
    start = (
        f"Transform {name!r} has row_wise=True, but its function computes rows from several "
        f"changes: called on {len(changes)} of them at once, and on each half of them ({location}),"
    )
    try:
        apart = [evaluate(part) for part in halves(changes)]
    except TransformError as error:
        what = f"{start} it fails on a half: {error.what}"
        raise ResultError(what, safe=SAFE, hint=_HINT) from error
    again: Rows | None = None
    for output, rows in together.items():
        try:
            whole, parts = _aligned(rows, [one[output] for one in apart])
        except pa.ArrowException as error:
            what = f"{start} it gives columns of other types for {output!r}: {error}."
            raise ResultError(what, safe=SAFE, hint=_HINT) from error
        if _counted(whole) == _counted(parts):
            continue
        again = again or evaluate(changes)
        whole, parts = (
            one.drop_columns(_changing(rows, again[output], one)) for one in (whole, parts)
        )
        difference = _difference(whole, parts)
        if difference is not None:
            raise ResultError(f"{start} {difference}.", safe=SAFE, hint=_HINT)


def _aligned(whole: pa.Table, parts: Sequence[pa.Table]) -> tuple[pa.Table, pa.Table]:
    """Return both in one schema, as results of parts are joined."""
    both = pa.concat_tables([whole, *parts], promote_options="permissive")
    return both.slice(0, len(whole)), both.slice(len(whole))


def _counted(rows: pa.Table) -> Counter[str]:
    return Counter(map(repr, rows.to_pylist()))


def _changing(rows: pa.Table, again: pa.Table, columns: pa.Table) -> list[str]:
    """Return the columns that two calls on the same changes give different values for."""
    if len(rows) != len(again):
        return []
    return [
        name
        for name in columns.column_names
        if name in rows.column_names
        and name in again.column_names
        and name not in HIDDEN
        and repr(rows[name].to_pylist()) != repr(again[name].to_pylist())
    ]


def _difference(whole: pa.Table, parts: pa.Table) -> str | None:
    """Describe the rows that differ by their keys and columns, without values; None: none does."""
    one, other = _counted(whole), _counted(parts)
    differing = (one - other) + (other - one)
    if not differing:
        return None
    keys = dict.fromkeys(
        row[KEY] for table in (whole, parts) for row in table.to_pylist() if repr(row) in differing
    )
    first = next(iter(keys))
    of_whole, of_parts = (
        [row for row in table.to_pylist() if row[KEY] == first] for table in (whole, parts)
    )
    if len(of_whole) != len(of_parts):
        how = f"{len(of_whole)} at once, {len(of_parts)} in halves"
    else:
        columns = [
            name
            for name in whole.column_names
            if Counter(repr(row[name]) for row in of_whole)
            != Counter(repr(row[name]) for row in of_parts)
        ]
        how = f"the columns {', '.join(map(repr, columns))} differ" if columns else "they differ"
    listed = ", ".join(shown(str(key)) for key in list(keys)[:_KEYS_SHOWN])
    more = f" and {len(keys) - _KEYS_SHOWN} more" if len(keys) > _KEYS_SHOWN else ""
    return f"it gives other rows for {len(keys)} keys, {listed}{more} (of the first one: {how})"
