"""Struct fields that an expression names and the rows do not have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from datazone_dagster.frame.syntax import Ask, Node, nodes, parse_expressions, print_expressions


def without_absent_fields(
    ask: Ask, text: str, schema: pa.Schema, *, table: str, call: str
) -> tuple[str, tuple[tuple[str, ...], ...]]:
    """Return an expression with null in place of struct fields that rows do not have.

    Fields are found in references with dots, such as `address.zip`. SQL ignores case.

    Args:
        ask: Runs a query with one text parameter.
        text: The expression.
        schema: Schema of the rows.
        table: Name of the rows, which a reference may begin with.
        call: Start of errors.

    Returns:
        The expression, and the path of each such field down to the name that is missing.
    """
    paths: list[tuple[str, ...]] = []

    def replaced(part: Any, parameters: frozenset[str] = frozenset()) -> Any:
        if isinstance(part, list):
            return [replaced(one, parameters) for one in part]
        if not isinstance(part, dict):
            return part
        if part.get("class") == "LAMBDA":
            parameters |= _parameters(part["lhs"])
        if part.get("class") == "COLUMN_REF":
            if str(part["column_names"][0]).casefold() in parameters:
                return part  # it hides the column of its name
            path = _absent_path(schema, [str(name) for name in part["column_names"]], table)
            if path is not None:
                paths.append(path)
                return {**json.loads(null), "alias": part["alias"]}
        return {name: replaced(one, parameters) for name, one in part.items()}

    null = json.dumps(parse_expressions(ask, "NULL", call=call)[0])
    items: list[Node] = replaced(parse_expressions(ask, text, call=call))
    return print_expressions(ask, items), tuple(dict.fromkeys(paths))


def _parameters(left: Node) -> frozenset[str]:
    """Return the parameters of a lambda; none if its arrow is that of JSON after a field."""
    if left.get("function_name", "row") != "row":
        return frozenset()
    names = [one["column_names"] for one in nodes(left) if one.get("class") == "COLUMN_REF"]
    return frozenset(str(path[0]).casefold() for path in names if len(path) == 1)


def has_path(schema: pa.Schema, path: Sequence[str]) -> bool:
    """Return whether rows have a column and, in it, the struct fields of a path."""
    columns = {field.name.casefold() for field in schema}
    return path[0].casefold() in columns and _absent_path(schema, path, "") is None


def _absent_path(schema: pa.Schema, names: Sequence[str], table: str) -> tuple[str, ...] | None:
    """Return the path to the first name that a struct lacks; None if there is none.

    Args:
        schema: Schema of the rows.
        names: Names of a reference: the table's, if it begins with it, column and fields.
        table: Name of the table.
    """
    columns = {field.name.casefold(): field.type for field in schema}
    path = list(names)
    if len(path) > 1 and path[0].casefold() == table.casefold() and path[1].casefold() in columns:
        path = path[1:]
    found = columns.get(path[0].casefold())
    for depth, name in enumerate(path[1:], start=1):
        if found is None or not pa.types.is_struct(found):
            return None
        fields = {field.name.casefold(): field.type for field in found.fields}
        if name.casefold() not in fields:
            return tuple(path[: depth + 1])
        found = fields[name.casefold()]
    return None
