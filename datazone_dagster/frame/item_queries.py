"""SQL of the values of items: text first, then the conversion, and what that could not read."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from datazone_dagster.frame.containers import exactly
from datazone_dagster.frame.item_columns import holds_key_numbers
from datazone_dagster.frame.item_types import Scalar, parse_type
from datazone_dagster.frame.item_values import ItemValue
from datazone_dagster.frame.paths import extracted, from_json, grouped
from datazone_dagster.frame.query_session import Session
from datazone_dagster.frame.record_view import RECORD_COLUMN
from datazone_dagster.frame.syntax import quoted
from datazone_dagster.frame.typed import canonical_integer, reading
from datazone_dagster.frame.usual_texts import usual_values

COLUMNS_AT_ONCE = 64
"""Columns per query: DuckDB allocates every column for 2,048 rows, in each step and thread."""


def field_of(name: str) -> str:
    """Return the SQL of a field of the stream record."""
    return f"struct_extract({RECORD_COLUMN}, '{name}')"


def subsets(values: Sequence[ItemValue]) -> list[Sequence[ItemValue]]:
    """Return the values in groups of one query each."""
    starts = range(0, len(values), COLUMNS_AT_ONCE)
    return [values[start : start + COLUMNS_AT_ONCE] for start in starts] or [()]


def raw_values(
    session: Session,
    query: str,
    values: Sequence[ItemValue],
    rest_of: Sequence[tuple[str, str]],
    hidden: Sequence[str],
) -> pa.Table:
    """Run the SQL: column `v<i>` is a value, `x<i>` its text if SQL could not read it."""
    columns: dict[str, pa.ChunkedArray] = {}
    for start, subset in zip(
        range(0, len(values) + 1, COLUMNS_AT_ONCE), subsets(values), strict=False
    ):
        first = start == 0
        found = session.table(
            _query(query, subset, rest_of if first else (), hidden if first else (), start)
        )
        columns |= dict(zip(found.column_names, found.columns, strict=True))
    return pa.table(columns)


def texts_query(
    query: str, values: Sequence[ItemValue], hidden: Sequence[str], more: str = ""
) -> str:
    """Return a SELECT of `t<i>`, the text (or boolean) of each value, parsed once per image."""
    position_of = {value.path: position for position, value in enumerate(values)}
    parsed: list[str] = []
    texts: list[str] = []
    for image in ("Keys", "OldImage", "NewImage"):
        for shape, paths in grouped(path for path in position_of if path.image == image):
            parsed.append(f"{from_json(field_of(image), shape)} AS j{len(parsed)}")
            texts += [
                f"{extracted(f'j{len(parsed) - 1}', path.column_steps)} AS t{position_of[path]}"
                for path in paths
            ]
    rests = [f"{field_of(image)} AS rest{at}" for at, image in enumerate(more.split())]
    carried = [quoted(name) for name in hidden]
    inner = ", ".join([*carried, *parsed, *rests])
    outer = ", ".join([*carried, *texts, *(rest.rpartition(" ")[2] for rest in rests)])
    return f"SELECT {outer} FROM (SELECT {inner} FROM ({query}))"  # noqa: S608  # escaped literals


def _query(
    query: str,
    values: Sequence[ItemValue],
    rest_of: Sequence[tuple[str, str]],
    hidden: Sequence[str],
    start: int,
) -> str:
    """Return the SELECT of one subset of the values, numbered from `start`."""
    kept = [*map(quoted, hidden), *(f"rest{position}" for position in range(len(rest_of)))]
    texts = texts_query(query, values, hidden, " ".join(image for image, _ in rest_of))
    return read_query(texts, values, kept, start)


def read_query(texts: str, values: Sequence[ItemValue], kept: Sequence[str], start: int) -> str:
    """Return a SELECT of `v<i>`, each value, and of `x<i>`, its text if SQL could not read it.

    Args:
        texts: SQL with `t<i>`, the text of each value, numbered from 0.
        values: Values to read.
        kept: Other columns of that SQL to select.
        start: Number of the first value in the result.
    """
    parsed, read, left = list(kept), list(kept), list(kept)
    for position, value in enumerate(values):
        text = f"t{position}"
        parsed.append(text)
        sql = _reading_of(value, text, f"p{position}")
        if value.content is not None:
            parsed.append(f"{from_json(text, value.content.shape)} AS p{position}")
        name = f"{start + position}"
        read.append(f"{sql or text} AS v{name}")
        left.append(f"v{name}")
        if sql is not None:
            read.append(text)
            left.append(f"CASE WHEN v{name} IS NULL THEN {text} END AS x{name}")
    steps = f"SELECT {', '.join(read)} FROM (SELECT {', '.join(parsed)} FROM ({texts}))"  # noqa: S608  # our names
    return f"SELECT {', '.join(left)} FROM ({steps})"  # noqa: S608  # our names


def _reading_of(value: ItemValue, text: str, parsed: str) -> str | None:
    """Return the SQL of a value, None if its text is the value."""
    if value.content is not None:
        return exactly(value.content, parsed, text, plain=value.is_json)
    if value.is_empty_list:
        return f"CASE WHEN {text} = '[]' THEN []::VARCHAR[] END"
    if value.is_container:
        return "NULL::VARCHAR"  # the sample had no such value
    return _scalar_reading(value, text)


def _scalar_reading(value: ItemValue, text: str) -> str | None:
    """Return the SQL of a scalar, None if its text is the value."""
    if holds_key_numbers(value.column):
        return canonical_integer(text)
    scalar = parse_type(value.column.type)
    assert isinstance(scalar, Scalar)
    return reading(scalar, text)


def usual_scalar(value: ItemValue, texts: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Return the values of scalars without SQL, None if that takes SQL for one of them."""
    if value.is_container or holds_key_numbers(value.column):
        return None
    if _scalar_reading(value, "t") is None:
        return texts
    scalar = parse_type(value.column.type)
    return usual_values(scalar, texts) if isinstance(scalar, Scalar) else None
