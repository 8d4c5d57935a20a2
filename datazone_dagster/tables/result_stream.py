"""What an asset returned as a stream of Arrow batches, without holding all of it.

Libraries are recognised by the module of a type, so that none is loaded for a look.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from datazone_dagster.errors import ResultError

ACCEPTED = (
    "a pyarrow Table or RecordBatchReader, anything else with the Arrow C stream interface, a "
    "Polars DataFrame or LazyFrame, a pandas DataFrame, a DuckDB relation, or an iterator of such "
    "batches"
)

BATCH_ROWS = 1 << 16
"""Rows of a batch, at most: what is checked, cast and sorted at a time."""


@dataclass(frozen=True)
class Result:
    """The rows that an asset returned, to be read once.

    Args:
        schema: Schema of the rows; without columns if there was nothing to tell it from.
        batches: Tables of at most `BATCH_ROWS` rows.
        notes: What was left out on the way here, for metadata.
    """

    schema: pa.Schema
    batches: Iterator[pa.Table]
    notes: tuple[str, ...] = ()


def opened_result(returned: Any, *, where: str) -> Result:
    """Return what an asset returned as a stream.

    Args:
        returned: Rows, or a mapping from partition keys to rows.
        where: Name of the asset for errors.

    Raises:
        ResultError: It is nothing that holds rows, or its parts differ in their columns.
    """
    kind = _kind(returned)
    if kind == ("pandas", "DataFrame"):
        return _of_pandas(returned, where)
    if kind == ("polars", "LazyFrame"):
        return _of_lazy(returned, where)
    reader = _reader_of(returned)
    if reader is not None:
        return Result(reader.schema, _sliced(reader))
    if isinstance(returned, Mapping):
        return _joined((opened_result(one, where=where) for one in returned.values()), where)
    if isinstance(returned, Iterable) and not isinstance(returned, (str, bytes)):
        return _joined((_part(one, where) for one in returned), where)
    raise _not_rows(returned, where)


def _part(one: Any, where: str) -> Result:
    if isinstance(one, (Mapping, str, bytes)) or not (
        hasattr(one, "__arrow_c_stream__")
        or hasattr(one, "__arrow_c_array__")
        or _kind(one)[0] in ("pandas", "polars", "duckdb")
    ):
        raise _not_rows(one, where, "an iterator of ")
    return opened_result(one, where=where)


def _kind(value: object) -> tuple[str, str]:
    kind = type(value)
    return kind.__module__.partition(".")[0].lstrip("_"), kind.__name__


def _not_rows(value: object, where: str, before: str = "") -> ResultError:
    what = "None" if value is None else f"{before}{type(value).__name__}"
    return ResultError(
        f"{where}: it returned {what}, which is not a set of rows.",
        safe="Nothing was written.",
        hint=f"Return {ACCEPTED}. An asset that writes for itself is annotated `-> None`.",
    )


def _reader_of(returned: Any) -> pa.RecordBatchReader | None:
    """Return a stream of what has one; None for anything else."""
    if _kind(returned)[0] == "duckdb" and hasattr(returned, "to_arrow_reader"):
        return returned.to_arrow_reader(BATCH_ROWS)
    if hasattr(returned, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(returned)
    if hasattr(returned, "__arrow_c_array__"):
        batch = pa.record_batch(returned)
        return pa.RecordBatchReader.from_batches(batch.schema, [batch])
    return None


def _sliced(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    for batch in batches:
        rows = pa.Table.from_batches([batch])
        for start in range(0, len(rows), BATCH_ROWS):
            yield rows.slice(start, BATCH_ROWS)


def _of_pandas(frame: Any, where: str) -> Result:
    """Read a data frame; a named index is a column, one without names is left out."""
    names = [name for name in frame.index.names if name is not None]
    notes: tuple[str, ...] = ()
    if names:
        frame = frame.reset_index()
    elif getattr(frame.index.dtype, "kind", "") not in "iu":  # integers count rows
        notes = ("The index of the pandas data frame has no name and was not written.",)
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
    except (pa.ArrowException, TypeError) as error:
        raise ResultError(
            f"{where}: the pandas data frame can't be read as Arrow: {error}.",
            safe="Nothing was written.",
            hint="Give every column one type, for example by df.convert_dtypes().",
        ) from error
    return Result(table.schema, _sliced(table.to_batches()), notes)


def _of_lazy(frame: Any, where: str) -> Result:
    """Run a query a batch at a time, where this version of Polars can."""
    if not hasattr(frame, "collect_batches"):
        return opened_result(frame.collect(engine="streaming"), where=where)
    batches = iter(frame.collect_batches(chunk_size=BATCH_ROWS))
    return _joined((opened_result(one, where=where) for one in batches), where)


def _joined(parts: Iterator[Result], where: str) -> Result:
    """Return the parts one after the other; parts without columns are passed over."""
    filled = (part for part in parts if len(part.schema))
    first = next(filled, None)
    if first is None:
        return Result(pa.schema([]), iter(()))
    schema = first.schema.remove_metadata()

    def batches() -> Iterator[pa.Table]:
        for part in itertools.chain([first], filled):
            if not part.schema.remove_metadata().equals(schema):
                raise _other_columns(schema, part.schema, where)
            yield from part.batches

    return Result(schema, batches(), first.notes)


def _other_columns(first: pa.Schema, other: pa.Schema, where: str) -> ResultError:
    def columns(schema: pa.Schema) -> set[tuple[str, str]]:
        return {(one.name, str(one.type)) for one in schema}

    different = sorted(columns(first) ^ columns(other))
    named = ", ".join(f"{name!r} ({kind})" for name, kind in different[:5]) or "their order"
    return ResultError(
        f"{where}: its batches differ in their columns: {named}.",
        safe="Nothing was written; the table is as it was.",
        hint="Give every batch the columns and types of the first one.",
    )
