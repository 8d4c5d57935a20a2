"""Lists and structs that are the same in DuckDB and in Spark, as Spark SQL. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from datazone_dagster.model.column_names import RECORD_MARKER
from datazone_dagster.spark.functions import Typed, as_type, comparable, kind_of, require
from datazone_dagster.spark.spark_text import name_of, text_of


def struct_of(names: Sequence[str], values: Sequence[Typed]) -> str:
    """Return the SQL of a struct of some values.

    Raises:
        NotTheSameError: A value has no name, or is the record.
    """
    require(all(names) and bool(names), "each field needs a name")
    _require_parts(values)
    parts = (f"{text_of(name)}, {one.sql}" for name, one in zip(names, values, strict=True))
    return f"named_struct({', '.join(parts)})"


def list_of(values: Sequence[Typed], duckdb_type: str) -> str:
    """Return the SQL of a list of some values.

    Raises:
        NotTheSameError: It is empty, or a value has another type than the others.
    """
    require(bool(values), "an empty list has no type; write null")
    _require_parts(values)
    element = duckdb_type.removesuffix("[]")
    return f"array({', '.join(as_type(one, element) for one in values)})"


def field_of(value: Typed, name: Typed) -> str:
    """Return the SQL of a field of a struct.

    Raises:
        NotTheSameError: The value is no struct, or is the record.
    """
    require(value.kind.name == "struct" and name.text is not None, "it takes a field by its name")
    _require_parts([value])
    return f"{value.sql}.{name_of(name.text or '')}"


def element_of(value: Typed, position: Typed) -> str:
    """Return the SQL of an element of a list; null where there is none.

    Raises:
        NotTheSameError: The value is no list, or the position no constant from the first or last.
    """
    require(
        value.kind.name == "list" and bool(position.number),
        "it takes a list, and a constant position from 1, or from -1, on",
    )
    return f"try_element_at({value.sql}, {position.number})"


def contained_in(values: Sequence[Typed], _: str) -> str:
    """Return the SQL of whether a list has a constant value; the rule of `list_contains`.

    Raises:
        NotTheSameError: The value is no constant of the elements' kind.
    """
    require(len(values) == 2 and values[0].kind.name == "list", "it takes a list and a value")
    wanted = values[1]
    require(
        wanted.text is not None or wanted.number is not None,
        "the value is a constant text or whole number",
    )
    element = values[0].type.removesuffix("[]")
    comparable(Typed("", kind_of(element), element), wanted)
    return f"exists({values[0].sql}, dz_e -> dz_e <=> {wanted.sql})"


def _require_parts(values: Sequence[Typed]) -> None:
    require(
        not any(RECORD_MARKER in one.type for one in values), "dynamodb is not a value by itself"
    )
