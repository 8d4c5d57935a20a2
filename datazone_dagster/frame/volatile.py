"""SQL whose result differs from one evaluation to the next: random numbers, the current time.

A change may be applied again: by a retry, by another run, by a rebuild. A random filter would then
keep other rows, and in merge and history mode the keys of the rows that it drops are removed. So
what decides which rows there are is distinguished from values in a column.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from datazone_dagster.frame.key_scope import has_aggregate
from datazone_dagster.frame.record_flow import arguments, renamed_columns
from datazone_dagster.frame.sql_functions import functions_called, macro_trees
from datazone_dagster.frame.syntax import Node, nodes

VolatileColumns = Mapping[str, str]
"""Columns, casefolded, with values of a volatile function, and the function: `random()`."""

_SAME_FOR_ALL = frozenset(
    {
        "current_catalog",
        "current_database",
        "current_role",
        "current_schema",
        "current_schemas",
        "current_setting",
        "current_user",
        "error",
        "getvariable",
        "in_search_path",
        "session_user",
        "sleep_ms",
        "stats",
        "user",
        "vector_type",
        "write_log",
    }
)
"""Functions that DuckDB calls volatile, or that read the session, but whose values are the same."""

_WRITTEN_LIKE_COLUMNS = frozenset(
    {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"}
)
_CLOCKS = frozenset({"current_localtime", "current_localtimestamp"})
"""Functions of the current time that DuckDB calls consistent, like `age` of one time."""


@dataclass(frozen=True, slots=True)
class Deciding:
    """A volatile function that decides which rows there are.

    Args:
        call: Call as the user wrote it.
        function: Function, as `random()`.
    """

    call: str
    function: str


def volatile_part(tree: object, columns: VolatileColumns, names: Iterable[str]) -> str | None:
    """Return a volatile function that expressions call or whose column they read; None without.

    Args:
        tree: Any subtree of a syntax tree.
        columns: The volatile columns.
        names: All columns, casefolded: `current_date` is the column if there is one.
    """
    known = frozenset(names)
    for node in nodes(tree):
        if node.get("class") == "COLUMN_REF":
            name = str(node["column_names"][-1]).casefold()
            if name in columns:
                return columns[name]
            is_clock = len(node["column_names"]) == 1 and name in _WRITTEN_LIKE_COLUMNS
            if is_clock and name not in known:
                return name
        elif node.get("class") == "FUNCTION" and is_volatile(node):
            return f"{str(node['function_name']).lower()}()"
    return None


def is_volatile(node: Node) -> bool:
    """Return whether a function call gives another value each time."""
    name = str(node["function_name"]).casefold()
    if name == "age":  # since the current date, unless it has two times
        return len(arguments(node)) == 1
    return _is_volatile_function(name)


def volatile_in_query(
    query: Node, call: str, columns: VolatileColumns, names: Iterable[str]
) -> tuple[VolatileColumns, tuple[Deciding, ...]]:
    """Return the volatile columns of a query, by any name in it, and what decides its rows.

    Args:
        query: The query.
        call: Call as the user wrote it.
        columns: The volatile columns of what it reads.
        names: All columns of what it reads, casefolded.
    """
    selects = list(_selects(query))
    items = [
        (str(item["alias"] or (item.get("column_names") or [""])[-1]).casefold(), item)
        for select in selects
        for item in select["select_list"]
    ]
    for renamed, select in renamed_columns(query):
        items += zip(map(str.casefold, renamed), select["select_list"], strict=False)
    known = {*names, *(name for name, _ in items)}
    found = dict(columns)
    while True:
        before = len(found)
        for name, item in items:
            function = volatile_part(item, found, known)
            if function is not None and name not in found:
                found[name] = function
        if len(found) == before:
            break
    deciding = (volatile_part(_deciding_parts(select), found, known) for select in selects)
    in_sets = (
        volatile_part([select["select_list"] for select in selects], found, known)
        for node in nodes(query)
        if node.get("type") == "SET_OPERATION_NODE" and not node["setop_all"]
    )
    functions = dict.fromkeys(one for one in (*deciding, *in_sets) if one is not None)
    return found, tuple(Deciding(call, function) for function in functions)


def _deciding_parts(select: Node) -> list[Any]:
    """Return the parts of a SELECT that decide which rows it has."""
    modifiers = [one for one in select["modifiers"] if one["type"] != "ORDER_MODIFIER"]
    items = select["select_list"]
    compared: list[Node] = []
    if any(
        one["type"] == "DISTINCT_MODIFIER" and not one["distinct_on_targets"] for one in modifiers
    ):
        compared = items
    elif select["aggregate_handling"] == "FORCE_AGGREGATES" or any(
        group["class"] == "CONSTANT" for group in select["group_expressions"]
    ):  # GROUP BY ALL, or by position
        compared = [item for item in items if not has_aggregate(item)]
    return [
        select["where_clause"],
        select["having"],
        select["qualify"],
        select["group_expressions"],
        select["modifiers"] if modifiers else None,
        *_conditions(select["from_table"]),
        *compared,
        *(item for item in items if any(map(unnests, nodes(item)))),
    ]


def unnests(node: Node) -> bool:
    """Return whether a node makes several rows from one."""
    return str(node.get("function_name", "")).casefold() == "unnest"


def _conditions(table: Node) -> Iterator[Any]:
    """Yield what a FROM clause computes: conditions of joins, arguments of table functions."""
    if table["type"] == "JOIN":
        yield table["condition"]
        yield from _conditions(table["left"])
        yield from _conditions(table["right"])
    elif table["type"] == "TABLE_FUNCTION":
        yield table["function"]


def _selects(query: Node) -> Iterator[Node]:
    """Yield the SELECTs whose rows become rows of a query: not those of scalar subqueries."""
    for entry in (query.get("cte_map") or {}).get("map", ()):
        inner = entry["value"]
        yield from _selects(inner["query"]["node"] if "query" in inner else inner["query_node"])
    if query["type"] == "SELECT_NODE":
        yield query
        yield from _of_table(query["from_table"])
    for side in query.get("children") or (query.get("left"), query.get("right")):
        if side:
            yield from _selects(side)


def _of_table(table: Node) -> Iterator[Node]:
    if table["type"] == "SUBQUERY":
        yield from _selects(table["subquery"]["node"])
    elif table["type"] == "JOIN":
        yield from _of_table(table["left"])
        yield from _of_table(table["right"])
    elif table.get("source"):  # PIVOT and UNPIVOT
        yield from _of_table(table["source"])


@functools.cache
def _is_volatile_function(name: str) -> bool:
    if name in _SAME_FOR_ALL:
        return False
    of_scalars = {one.stability for one in functions_called(name) if one.kind == "scalar"}
    if name in _CLOCKS or of_scalars & {"VOLATILE", "CONSISTENT_WITHIN_QUERY"}:
        return True
    return volatile_part(list(macro_trees(name)), {}, ()) is not None
