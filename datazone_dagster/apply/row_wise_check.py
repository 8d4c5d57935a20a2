"""Check of `@transform(row_wise=True)`: the rows of some changes are those of their parts.

A function that keeps the promise can be called on the latest change of each key, some thousand at
a time. One that does not would give other rows from one run to the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.apply.function_errors import SAFE
from datazone_dagster.dataset.latest import only_latest
from datazone_dagster.errors import ResultError, TransformError
from datazone_dagster.model.column_names import HIDDEN, KEY, VERSION, Log
from datazone_dagster.text import shown

CHECKED_CHANGES = 500
"""The function is called on at most so many changes at once, and on each half of them."""

_WITH_ROWS, _OTHERS, _DELETES = 300, 100, 100
"""Of these at most so many: changes with rows, other changes, and deletes without rows."""

_KEYS_SHOWN = 5

_HINT = (
    "Compute each row from its own change and from nothing else, or leave out row_wise=True: the "
    "function then gets every change of a chunk at once. Sums, ranks and windows over items belong "
    "in an asset downstream, which reads the dataset."
)

Rows = Mapping[str, pa.Table]
"""Rows of a function by output."""


class Sample:
    """Some changes that show whether a function is row-wise: first of all those that have rows."""

    def __init__(self) -> None:
        self._kinds: list[list[pa.Table]] = [[], [], []]

    def add(self, changes: pa.Table, rows: Rows) -> None:
        """Add some of these changes; the sample has copies of them.

        Args:
            changes: Changes with the hidden columns.
            rows: The function's rows for them.
        """
        has_rows = np.zeros(len(changes), bool)
        for table in rows.values():
            keys = table[KEY].cast(pa.string()).combine_chunks()
            has_rows |= pc.is_in(changes[KEY], value_set=keys).to_numpy()
        is_delete = pc.equal(changes[Log.EVENT_NAME], "REMOVE").fill_null(False).to_numpy()
        of_kinds = has_rows, ~has_rows & ~is_delete, ~has_rows & is_delete
        limits = _WITH_ROWS, _OTHERS, _DELETES
        for found, of_kind, most in zip(self._kinds, of_kinds, limits, strict=True):
            positions = np.flatnonzero(of_kind)[: most - sum(map(len, found))]
            if len(positions):
                found.append(changes.take(pa.array(positions)))

    def changes(self) -> pa.Table | None:
        """Return the changes, one per key; None if there are none.

        Every other change makes a half of them, so that each half has some of each kind.
        """
        tables = list(chain.from_iterable(self._kinds))
        if not tables:
            return None
        changes = pa.concat_tables(tables)
        return only_latest(changes, changes[KEY], changes[VERSION])


def check_row_wise(
    name: str, changes: pa.Table, evaluate: Callable[[pa.Table], Rows], location: str
) -> bool:
    """Check that a function gives the same rows for changes together as apart, in any order.

    Columns that differ between two calls on the same changes, such as a time of loading, do not
    count.

    Args:
        name: Name of the transform.
        changes: The changes of a sample; fewer than two show nothing.
        evaluate: Calls the function on some of them.
        location: Origin of the changes, for the error.

    Returns:
        Whether rows of at least two changes were compared. If not, the check has shown nothing.

    Raises:
        ResultError: The function gives other rows, or fails on some of the changes.
    """
    if len(changes) < 2:
        return False
    start = (
        f"Transform {name!r} has row_wise=True, but its function computes rows from several "
        f"changes: called on {len(changes)} of them at once, and on each half of them ({location}),"
    )
    try:
        together = evaluate(changes)
        apart = [evaluate(changes.take(list(range(at, len(changes), 2)))) for at in (0, 1)]
    except TransformError as error:
        what = f"{start} it fails on some of them: {error.what}"
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
    return len({key for rows in together.values() for key in rows[KEY].to_pylist()}) > 1


def _aligned(whole: pa.Table, parts: Sequence[pa.Table]) -> tuple[pa.Table, pa.Table]:
    """Return both in one schema, as results of parts are joined."""
    both = pa.concat_tables([whole, *parts], promote_options="permissive")
    return both.slice(0, len(whole)), both.slice(len(whole))


def _counted(rows: pa.Table) -> Counter[str]:
    return Counter(map(repr, rows.to_pylist()))


def _changing(rows: pa.Table, again: pa.Table, columns: pa.Table) -> list[str]:
    """Return the columns that two calls on the same changes give different values for.

    Values are compared by change: the rows of two calls may come in another order.
    """
    if len(rows) != len(again):
        return []
    return [
        name
        for name in columns.column_names
        if name in rows.column_names
        and name in again.column_names
        and name not in HIDDEN
        and _counted(rows.select([*HIDDEN, name])) != _counted(again.select([*HIDDEN, name]))
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
