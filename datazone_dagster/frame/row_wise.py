"""Which SQL gives the rows of a change from that change alone.

Such SQL may run on any part of a chunk, in any order, and on the latest change of each key
only: what it gives for a change never depends on the others. What is not known to be so
counts as not so: only listed kinds of nodes pass, and functions that DuckDB calls scalar and
the same for the same arguments.
"""

from __future__ import annotations

import functools

import duckdb

from datazone_dagster.frame.syntax import Node, nodes, parse_expressions

_CLASSES = {
    "BETWEEN",
    "CASE",
    "CAST",
    "COLLATE",
    "COLUMN_REF",
    "COMPARISON",
    "CONJUNCTION",
    "CONSTANT",
    "FUNCTION",
    "LAMBDA",
    "OPERATOR",
    "STAR",
    "TYPE",
}
_VALUES_OF_THE_MOMENT = {
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "localtime",
    "localtimestamp",
    "session_user",
    "user",
}
"""Functions that SQL writes like columns; a column of such a name is taken for one."""


def is_row_wise(tree: object) -> bool:
    """Whether expressions (any part of a syntax tree) depend on one row only."""
    return all(_is_known(node) for node in nodes(tree))


def is_row_wise_query(query: Node, source: str) -> bool:
    """Whether a query is a plain SELECT over one table, each row of it from one row of that."""
    table = query.get("from_table") or {}
    return (
        query["type"] == "SELECT_NODE"
        and table["type"] == "BASE_TABLE"
        and not table["schema_name"]
        and str(table["table_name"]).casefold() == source.casefold()
        and not (table["sample"] or query["sample"] or query["qualify"] or query["having"])
        and not (query["group_expressions"] or query["group_sets"] or query["modifiers"])
        and not query["cte_map"]["map"]
        and query["aggregate_handling"] == "STANDARD_HANDLING"
        and is_row_wise([query["select_list"], query["where_clause"]])
    )


def _is_known(node: Node) -> bool:
    kind = node.get("class")
    if kind is None:  # a value's type, not an expression
        return True
    if kind == "COLUMN_REF":
        names = node["column_names"]
        return len(names) > 1 or str(names[0]).casefold() not in _VALUES_OF_THE_MOMENT
    if kind == "FUNCTION":
        return _is_row_wise_function(str(node["function_name"]).casefold())
    return kind in _CLASSES and node["type"] != "GROUPING_FUNCTION"


def _is_row_wise_function(name: str) -> bool:
    if name == "unnest":  # several rows of one change, from that change alone
        return True
    return name in _scalar_functions() or _is_row_wise_macro(name)


@functools.cache
def _scalar_functions() -> frozenset[str]:
    """The functions of this DuckDB that give the same for the same arguments."""
    with duckdb.connect() as connection:
        names = connection.execute(
            "SELECT function_name FROM duckdb_functions() "
            "WHERE function_type IN ('scalar', 'aggregate', 'window', 'macro') GROUP BY ALL "
            "HAVING bool_and(function_type = 'scalar' AND stability = 'CONSISTENT')"
        ).fetchall()
    return frozenset(str(name) for (name,) in names)


@functools.cache
def _is_row_wise_macro(name: str) -> bool:
    """Whether it is a macro of DuckDB (such as nullif) that is made of such functions."""
    with duckdb.connect() as connection:
        definitions = connection.execute(
            "SELECT macro_definition FROM duckdb_functions() "
            "WHERE function_name = ? AND function_type = 'macro'",
            [name],
        ).fetchall()

        def ask(query: str, value: str) -> str:
            return str(connection.execute(query, [value]).fetchall()[0][0])

        trees = [parse_expressions(ask, str(text), call=name) for (text,) in definitions]
    return bool(trees) and is_row_wise(trees)
