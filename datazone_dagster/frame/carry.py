"""Addition of the hidden columns to a user's query wherever the query keeps its meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datazone_dagster.frame.syntax import Node


def carry(query: Node, source: str, hidden: Sequence[str]) -> bool:
    """Add the hidden columns of `source` to the select list of a query, in place.

    The columns are added only if each row of the result comes from one row of `source`: not
    through groups, a DISTINCT, a UNION without ALL, or a table that does not carry them.
    Aggregates are not distinguished from other functions here: a query with aggregates does not
    bind afterwards, and the caller falls back to the unchanged query.

    Args:
        query: Tree of a query; changed even if the result is False.
        source: Table whose rows carry the columns.
        hidden: Names of the hidden columns.

    Returns:
        Whether the query's result has the columns now.
    """
    return _carry(query, {source.casefold()}, hidden)


def _carry(node: Node, carriers: set[str], hidden: Sequence[str]) -> bool:
    carriers = set(carriers)
    for entry in node["cte_map"]["map"]:
        name, inner = entry["key"].casefold(), entry["value"]
        if not inner["aliases"] and _carry(_query_of(inner), carriers, hidden):
            carriers.add(name)
        else:
            carriers.discard(name)
    if node["type"] == "SET_OPERATION_NODE":
        if not node["setop_all"] or node["setop_type"] != "UNION":
            return False
        # every side has to change, or the columns would not match
        carried = [_carry(side, carriers, hidden) for side in _sides(node)]
        return all(carried)
    if node["type"] != "SELECT_NODE" or not _row_by_row(node):
        return False
    qualifier = _carrying_table(node["from_table"], carriers, hidden)
    if qualifier is None:
        return False
    _select(node, qualifier, hidden)
    return True


def _query_of(entry: Node) -> Node:
    """Return the query of a CTE, which DuckDB 1 wraps in one more node."""
    query: Node = entry["query"]["node"] if "query" in entry else entry["query_node"]
    return query


def _sides(node: Node) -> list[Node]:
    children: list[Node] = node.get("children") or []
    return children or [side for side in (node["left"], node["right"]) if side]


def _row_by_row(node: Node) -> bool:
    return (
        not node["group_expressions"]
        and not node["group_sets"]
        and node["aggregate_handling"] == "STANDARD_HANDLING"
        and not any(modifier["type"] == "DISTINCT_MODIFIER" for modifier in node["modifiers"])
    )


def _carrying_table(table: Node, carriers: set[str], hidden: Sequence[str]) -> str | None:
    """Return the name, in a FROM clause, of the first table that carries the columns."""
    kind = table["type"]
    if kind == "BASE_TABLE":
        name = str(table["table_name"])
        plain = not table["schema_name"] and not table["column_name_alias"]
        return (table["alias"] or name) if plain and name.casefold() in carriers else None
    if kind == "JOIN":
        left = _carrying_table(table["left"], carriers, hidden)
        return _carrying_table(table["right"], carriers, hidden) if left is None else left
    if kind == "PIVOT" and table["unpivot_names"] and not table["column_name_alias"]:
        return str(table["alias"]) if _unpivoted(table, carriers, hidden) else None
    if kind == "SUBQUERY" and not table["column_name_alias"]:  # perhaps without a name
        inner: Node = table["subquery"]["node"]
        return str(table["alias"]) if _carry(inner, carriers, hidden) else None
    return None


def _unpivoted(table: Node, carriers: set[str], hidden: Sequence[str]) -> bool:
    """Return whether an UNPIVOT keeps the columns, which its `*` leaves out."""
    source = table["source"]
    if source["type"] == "SUBQUERY":
        carries = _carry(source["subquery"]["node"], carriers, hidden)
    else:
        carries = _carrying_table(source, carriers, hidden) is not None
    for star in _stars_below(table["pivots"]):
        exclude_hidden(star, str(source["alias"]), hidden)
    return carries


def _select(node: Node, qualifier: str, hidden: Sequence[str]) -> None:
    named = {_output_name(item) for item in node["select_list"]}
    for item in node["select_list"]:
        if item["type"] == "STAR":
            exclude_hidden(item, qualifier, hidden)
    node["select_list"] += [
        column(name, qualifier) for name in hidden if name.casefold() not in named
    ]


def _output_name(item: Node) -> str:
    names = item.get("column_names") or [""]
    return str(item["alias"] or names[-1]).casefold()


def exclude_hidden(star: Node, qualifier: str, hidden: Sequence[str]) -> None:
    """Exclude the hidden columns from a `*`, in place, if it stands for the table's columns."""
    inner = star["expr"]
    if inner is not None:  # COLUMNS(c -> ...) contains its own star
        for nested in _stars_below(inner):
            exclude_hidden(nested, qualifier, hidden)
        return
    if star["relation_name"].casefold() in {"", qualifier.casefold()}:
        excluded = {str(name).casefold() for name in star["exclude_list"]}
        star["exclude_list"] += [name for name in hidden if name.casefold() not in excluded]


def _stars_below(tree: Any) -> list[Node]:
    if isinstance(tree, list):
        return [star for part in tree for star in _stars_below(part)]
    if not isinstance(tree, dict):
        return []
    if tree.get("type") == "STAR":
        return [tree]
    return [star for part in tree.values() for star in _stars_below(part)]


def column(name: str, qualifier: str = "") -> Node:
    """Return the tree of a column reference."""
    return {
        "class": "COLUMN_REF",
        "type": "COLUMN_REF",
        "alias": "",
        "query_location": 0,
        "column_names": [qualifier, name] if qualifier else [name],
    }
