"""Detection of row-wise SQL: SQL that computes the rows of a change from that change alone.

Row-wise SQL may run on any subset of a chunk, in any order, and on only the latest change of
each key, because the result for one change never depends on another change. SQL counts as
row-wise only if that is known: its nodes are of a listed class, and DuckDB reports its
functions as scalar and consistent (the same result for the same arguments).
"""

from __future__ import annotations

import functools

from datazone_dagster.frame.sql_functions import Overload, functions_called, macro_trees
from datazone_dagster.frame.syntax import Node, nodes
from datazone_dagster.frame.volatile import is_volatile

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
_CURRENT_VALUES = {
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
"""Functions that SQL writes like columns; a column with such a name is treated as one."""


def is_row_wise(tree: object) -> bool:
    """Return whether expressions (any subtree of a syntax tree) depend on one row only."""
    return all(_is_known(node) for node in nodes(tree))


def is_row_wise_query(query: Node, source: str) -> bool:
    """Return whether a query is a plain SELECT that makes each row from one row of `source`."""
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
    if kind is None:  # the type of a value, not an expression
        return True
    if kind == "COLUMN_REF":
        names = node["column_names"]
        return len(names) > 1 or str(names[0]).casefold() not in _CURRENT_VALUES
    if kind == "FUNCTION":
        name = str(node["function_name"]).casefold()
        return _is_row_wise_function(name) and not is_volatile(node)
    return kind in _CLASSES and node["type"] != "GROUPING_FUNCTION"


@functools.cache
def _is_row_wise_function(name: str) -> bool:
    if name == "unnest":  # makes several rows from one change alone
        return True
    if functions_called(name) == {Overload("scalar", "CONSISTENT")}:
        return True
    trees = macro_trees(name)  # such as nullif
    return bool(trees) and is_row_wise(list(trees))
