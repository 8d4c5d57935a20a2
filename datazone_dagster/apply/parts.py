"""Evaluation of a chunk in parts, where memory does not suffice for all of its changes at once.

A batch of the change log is the smallest chunk, but a function may need many times its size. So a
part that runs out of memory is halved, down to single changes, and the rows are joined. The chunk
is still committed once. A function can't tell a part from a chunk: chunks have no fixed size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from datazone_dagster.apply.chunk import FunctionResult, ReadReport
from datazone_dagster.errors import OutOfMemoryError, ResultError

MOST_PASSES = 4
"""A pass finds the columns and types of all parts, the next one uses them from the first part on.
Types only widen, from integer to decimal to string, so that the fourth pass finds nothing new."""


@dataclass(frozen=True, slots=True)
class PartResult:
    """Result of the function for a part, and what its frames found."""

    result: FunctionResult
    read: ReadReport


def evaluated_in_parts(
    changes: pa.Table,
    evaluate: Callable[[pa.Table], PartResult],
    alone: Callable[[pa.Table, OutOfMemoryError], PartResult],
    is_too_large: Callable[[pa.Table], bool],
) -> PartResult:
    """Evaluate halves of the changes, and halves of those that need too much memory.

    Args:
        changes: At least two changes.
        evaluate: Evaluates some of the changes. It may return more columns or wider types, once
            it has seen later changes.
        alone: Decides on a single change that needs too much memory.
        is_too_large: Whether some changes are known to need too much memory.

    Raises:
        OutOfMemoryError: Raised by `alone`.
        ResultError: The function returns other types for one part than for another.
    """
    parts = halves(changes)
    for _ in range(MOST_PASSES):
        done = _pass(parts, evaluate, alone, is_too_large)
        if fit_together(one.result for _, one in done):
            break
        parts = [part for part, _ in done]
    return joined([one for _, one in done])


def halves(changes: pa.Table) -> list[pa.Table]:
    """Return the two halves of some changes, without a copy."""
    middle = len(changes) // 2
    return [changes.slice(0, middle), changes.slice(middle)]


def _pass(
    parts: Sequence[pa.Table],
    evaluate: Callable[[pa.Table], PartResult],
    alone: Callable[[pa.Table, OutOfMemoryError], PartResult],
    is_too_large: Callable[[pa.Table], bool],
) -> list[tuple[pa.Table, PartResult]]:
    waiting = list(reversed(parts))
    done: list[tuple[pa.Table, PartResult]] = []
    while waiting:
        part = waiting.pop()
        if len(part) > 1 and is_too_large(part):
            waiting += reversed(halves(part))
            continue
        try:
            result = evaluate(part)
        except OutOfMemoryError as error:
            if len(part) > 1:
                waiting += reversed(halves(part))
                continue
            result = alone(part, error)
        done.append((part, result))
    return done


def fit_together(results: Iterable[FunctionResult]) -> bool:
    """Return whether all parts have rows of the same columns; parts without changes have none."""
    schemas = [
        {output: rows.schema for output, rows in one.rows.items()}
        for one in results
        if len(one.changes)
    ]
    return all(schema == schemas[0] for schema in schemas)


def joined(parts: Sequence[PartResult]) -> PartResult:
    """Join the results of all parts.

    Raises:
        ResultError: The function returned other types for one part than for another.
    """
    siblings: Counter[str] = Counter()
    for part in parts:
        siblings.update(part.read.sibling_values)
    results = [part.result for part in parts]
    with_rows = [one for one in results if len(one.changes)] or results[:1]
    return PartResult(
        FunctionResult(
            pa.concat_tables([one.changes for one in results]),
            {
                output: _joined_rows([one.rows[output] for one in with_rows], output)
                for output in with_rows[0].rows
            },
            pa.concat_tables([one.refused for one in results]),
        ),
        ReadReport(
            siblings,
            tuple(one for part in parts for one in part.read.mismatches),
            parts[-1].read.unfound_paths,
            any(part.read.lacks_old_images for part in parts),
            {name: paths for part in parts for name, paths in part.read.sources.items()},
        ),
    )


def _joined_rows(tables: Sequence[pa.Table], output: str) -> pa.Table:
    try:
        rows = pa.concat_tables(tables, promote_options="permissive")
        for field in (field for table in tables for field in table.schema):
            _check_exact(field.type, rows.schema.field(field.name).type)
    except pa.ArrowException as error:
        raise ResultError(
            f"Output {output!r}: the function returned other column types for one part of the "
            f"chunk than for another: {error}.",
            safe="Nothing of this chunk was applied; the change log keeps it.",
            hint="The chunk was evaluated in parts: some thousand changes at a time for a row-wise "
            "function, fewer where memory is short. Give the columns fixed types, such as "
            "decimal(38, 18) for all parts.",
        ) from error
    return rows


_LISTS = (pa.ListType, pa.LargeListType, pa.FixedSizeListType)
"""Polars gives large lists, and arrays of a fixed size."""


def _check_exact(part: pa.DataType, whole: pa.DataType) -> None:
    """Check that no value was rounded: Arrow refuses integers that a double can't hold only.

    Raises:
        pa.ArrowTypeError: Decimals became floats.
    """
    if pa.types.is_decimal(part) and pa.types.is_floating(whole):
        raise pa.ArrowTypeError(f"{part} and {whole} have no type that holds both exactly")
    if isinstance(part, pa.StructType) and isinstance(whole, pa.StructType):
        for field in part:
            _check_exact(field.type, whole.field(field.name).type)
    elif isinstance(part, pa.MapType) and isinstance(whole, pa.MapType):
        _check_exact(part.item_type, whole.item_type)
    elif isinstance(part, _LISTS) and isinstance(whole, _LISTS):
        _check_exact(part.value_type, whole.value_type)
