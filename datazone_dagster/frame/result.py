"""Conversion of a user function's return value to the rows of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import duckdb
import numpy as np
import pyarrow as pa

from datazone_dagster.errors import HiddenColumnsError, ResultError
from datazone_dagster.frame.arrow_types import as_delta
from datazone_dagster.frame.relation import Relation
from datazone_dagster.frame.sql_errors import one_line
from datazone_dagster.frame.text_bytes import are_within, bytes_of, offsets_of
from datazone_dagster.model.attributes import safe_name
from datazone_dagster.model.column_names import (
    ATTRIBUTE,
    EVENT_TIME,
    HIDDEN,
    ITEM_RESTS,
    RESERVED_PREFIX,
    VERSION,
    has_refused_characters,
)
from datazone_dagster.model.version import EPOCH_DIGITS, SEQUENCE_DIGITS

Mode = Literal["merge", "append", "history"]

_ACCEPTED = "Return the frame, a DuckDB relation, an Arrow table, or a Polars or pandas data frame."
_FROM_DICTS = (
    "Return columns: an expression in frame.select(), or pa.Table.from_pylist(rows) where each "
    "dict has the _dz_key, _dz_version and _dz_event_time of its change."
)
_KEEP = {
    "frame": "In sql(), select changes._dz_key, changes._dz_version and changes._dz_event_time; "
    "in an aggregate, grouped by the complete key, take those of the newest row: "
    "arg_max(_dz_key, _dz_version).",
    "DuckDB": "Keep _dz_key, _dz_version and _dz_event_time in the relation's columns.",
    "Polars": "Keep them: .select(..., '_dz_key', '_dz_version', '_dz_event_time').",
    "pandas": "Keep them: df[[..., '_dz_key', '_dz_version', '_dz_event_time']].",
    "Arrow": "Keep the columns _dz_key, _dz_version and _dz_event_time of frame.arrow().",
}
_VERSION_CHARS = EPOCH_DIGITS + SEQUENCE_DIGITS


def split_outputs(returned: object, outputs: Sequence[tuple[str, ...]]) -> list[object]:
    """Split a function's return value into the values of its outputs, in output order.

    A single output takes the value itself, or the only element of a tuple or list. Several
    outputs take a dict by name, or a tuple in order.

    Args:
        returned: Return value of the function.
        outputs: Names by which a dict may hold the output, for each output.

    Raises:
        ResultError: An output is missing, or a value belongs to no output.
    """
    shown = ", ".join(repr(names[0]) for names in outputs)
    if isinstance(returned, Mapping):
        known = {name for names in outputs for name in names}
        unknown = [key for key in returned if key not in known]
        values = [
            [returned[name] for name in dict.fromkeys(names) if name in returned]
            for names in outputs
        ]
        if unknown or any(len(found) != 1 for found in values):
            keys = ", ".join(repr(key) for key in returned) or "nothing"
            raise ResultError(
                f"The function returned a dict of {keys}, but its outputs are {shown}.",
                safe="Nothing was written.",
                hint="Return each output once, by its name in output_mapping.",
            )
        return [found[0] for found in values]
    if isinstance(returned, (tuple, list)) and (len(outputs) > 1 or _wraps_one_result(returned)):
        if len(returned) != len(outputs):
            raise ResultError(
                f"The function returned {len(returned)} values, but its outputs are {shown}.",
                safe="Nothing was written.",
                hint="Return one value per output, in this order, or a dict by name.",
            )
        return list(returned)
    if len(outputs) == 1:
        return [returned]
    raise ResultError(
        f"The function returned one {_kind_of(returned)}, but its outputs are {shown}.",
        safe="Nothing was written.",
        hint="Return a tuple in this order, or a dict by name.",
    )


def _wraps_one_result(returned: Sequence[object]) -> bool:
    """Return whether a tuple or list wraps the rows of one output and is not itself the rows."""
    return len(returned) == 1 and not isinstance(returned[0], (Mapping, tuple, list, type(None)))


def rows_of(returned: object, *, dataset_id: str, mode: Mode) -> pa.Table:
    """Convert the rows that a function returned for a dataset to the types of Delta Lake.

    Args:
        returned: Frame, DuckDB relation, anything with the Arrow C stream or array interface
            (pyarrow, Polars, arro3), Polars LazyFrame, or pandas data frame.
        dataset_id: Id of the dataset, for errors.
        mode: Mode of the dataset, for errors.

    Returns:
        The function's columns in their order, then `_dz_key` and `_dz_version` (strings) and
        `_dz_event_time` (timestamp in microseconds, UTC), none of them null. A name that Delta
        refuses is made safe, the original in the field's metadata as `datazone.attribute`.

    Raises:
        HiddenColumnsError: The hidden columns are missing or changed.
        ResultError: The value is not rows, a column name is unusable, or Delta Lake lacks a type.
        TransformError: The frame or relation failed while it was read.
    """
    where = f"Dataset {dataset_id!r}"
    table = _as_table(returned, where)
    _check_names(table.column_names, where)
    _check_hidden_present(table, _library(returned), where, mode)
    table = _with_safe_names(as_delta(table, where=where))
    _check_hidden(table, where)
    columns = [name for name in table.column_names if name not in HIDDEN]
    return table.select([*columns, *HIDDEN])


def _with_safe_names(table: pa.Table) -> pa.Table:
    """Replace names that Delta refuses, as `items()` does with those of attributes."""
    fields = list(table.schema)
    for at, field in enumerate(fields):
        if has_refused_characters(field.name):
            others = [one.name for one in (*fields[:at], *fields[at + 1 :])]
            name = safe_name(field.name, others, identity=f"{field.name}\0")
            fields[at] = field.with_name(name).with_metadata({ATTRIBUTE: field.name})
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields))


def _library(returned: object) -> str:
    """Return the library of an object, found without importing that library."""
    if isinstance(returned, Relation):
        return "frame"
    module = type(returned).__module__.partition(".")[0]
    return {"polars": "Polars", "pandas": "pandas", "duckdb": "DuckDB", "_duckdb": "DuckDB"}.get(
        module, "Arrow"
    )


def _as_table(returned: Any, where: str) -> pa.Table:
    library = _library(returned)
    try:
        if isinstance(returned, pa.Table):
            return returned
        if isinstance(returned, Relation):
            return returned.arrow()
        if library == "Polars" and type(returned).__name__ == "LazyFrame":
            returned = returned.collect()
        if library == "pandas" and type(returned).__name__ == "DataFrame":
            return pa.Table.from_pandas(returned, preserve_index=False).replace_schema_metadata()
        if library == "DuckDB" and hasattr(returned, "to_arrow_table"):
            table: pa.Table = returned.to_arrow_table()
            return table
        if hasattr(returned, "__arrow_c_stream__"):
            return pa.RecordBatchReader.from_stream(returned).read_all()
        if hasattr(returned, "__arrow_c_array__"):
            return pa.Table.from_batches([pa.record_batch(returned)])
    except (pa.ArrowException, duckdb.Error, TypeError) as error:
        raise ResultError(
            f"{where}: the {_kind_of(returned)} that the function returned can't be read as "
            f"rows: {one_line(str(error))}.",
            safe="Nothing was written.",
            hint=_ACCEPTED,
        ) from error
    kind = _kind_of(returned)
    what = "nothing" if returned is None else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
    missing = "Does it end without a return? " if returned is None else ""
    dicts = isinstance(returned, (tuple, list)) and any(isinstance(x, Mapping) for x in returned)
    raise ResultError(
        f"{where}: the function returned {what}, which is not a set of rows.",
        safe="Nothing was written.",
        hint=f"{_ACCEPTED} {_FROM_DICTS}" if dicts else missing + _ACCEPTED,
    )


def _kind_of(value: object) -> str:
    kind = type(value)
    if isinstance(value, (tuple, list)) and value:
        inside = " and ".join(dict.fromkeys(type(one).__name__ for one in value[:100]))
        return f"{kind.__name__} of {inside}"
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _check_names(names: Sequence[str], where: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if not name:
            raise ResultError(f"{where}: a column has no name.", hint="Give it one.")
        folded = name.casefold()
        if folded in seen:
            raise ResultError(
                f"{where}: two columns are named {seen[folded]!r} and {name!r}; column names must "
                "differ in more than case.",
                safe="Nothing was written.",
                hint="Rename one of them.",
            )
        seen[folded] = name
        if folded.startswith(RESERVED_PREFIX) and name not in (*HIDDEN, *ITEM_RESTS):
            raise ResultError(
                f"{where}: the column name {name!r} is reserved.",
                safe="Nothing was written.",
                hint=f"Rename it: names that start with {RESERVED_PREFIX!r} are reserved.",
            )


def _check_hidden_present(table: pa.Table, library: str, where: str, mode: Mode) -> None:
    missing = [name for name in HIDDEN if name not in table.column_names]
    if missing:
        raise HiddenColumnsError(
            f"{where}: the returned rows have lost {', '.join(missing)}, but mode={mode!r} needs "
            "to know which change each row comes from.",
            safe="Nothing was written.",
            hint=_KEEP[library],
        )


def _check_hidden(table: pa.Table, where: str) -> None:
    for name in HIDDEN:
        if name not in table.column_names:  # a column of the null type
            raise _changed(where, name, "holds nulls only")
        column = table.column(name)
        expected = pa.timestamp("us", tz="UTC") if name == EVENT_TIME else pa.string()
        if column.type != expected:
            raise _changed(where, name, f"is {column.type}, not {expected}")
        if column.null_count:
            raise _changed(where, name, f"is null in {column.null_count} rows")
    if not all(map(_are_versions, table.column(VERSION).chunks)):
        raise _changed(where, VERSION, "holds values that are not versions of changes")


def _are_versions(texts: pa.StringArray) -> bool:
    lengths = np.diff(offsets_of(texts))
    return bool(np.all(lengths == _VERSION_CHARS)) and are_within(bytes_of(texts), "0", "9")


def _changed(where: str, name: str, what: str) -> HiddenColumnsError:
    return HiddenColumnsError(
        f"{where}: the column {name} of the returned rows {what}.",
        safe="Nothing was written.",
        hint="Each row must keep the values of its change; an outer join or a computed value "
        "loses them.",
    )
