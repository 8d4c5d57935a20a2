"""Expressions that give a stream record unchanged, or a list of records.

`lag(dynamodb) OVER (...)` is a record, and paths lead into it. `to_json(dynamodb)` is none. A
record is known by its column, so the names that a query gives to records are followed through it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from datazone_dagster.frame.syntax import Node, nodes

Records = Mapping[str, int]
"""Columns, casefolded, that hold a record (0) or a list of records (1)."""

_MOST_LISTS = 1

_OF_GROUPS = frozenset(
    {
        "any_value",
        "arbitrary",
        "arg_max",
        "arg_max_null",
        "arg_max_nulls_last",
        "arg_min",
        "arg_min_null",
        "arg_min_nulls_last",
        "argmax",
        "argmin",
        "first",
        "last",
        "max_by",
        "min_by",
    }
)
_OF_WINDOWS = frozenset({"first_value", "last_value", "nth_value"})
_LISTS = frozenset({"array_agg", "list"})
_ELEMENTS = frozenset({"array_extract", "list_element", "list_extract", "unnest"})
_PRESENCE = frozenset({"OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"})
_ARGUMENTS_WITH_COUNT = 3
"""arg_max(value, by, count) gives a list."""


def arguments(node: Node) -> list[Node]:
    """Return the arguments of a function; DuckDB 2 wraps each in one more node."""
    wrapped = node.get("arguments")
    if wrapped is None:
        extra = [node.get("offset_expr"), node.get("default_expr")]
        return [*node["children"], *(one for one in extra if one)]
    return [one["expression"] for one in wrapped]


def depth(node: Node, records: Records) -> int | None:
    """Return 0 if an expression gives a record, 1 if a list of records, None for anything else."""
    if node.get("class") == "COLUMN_REF":
        return records.get(_last_name(node).casefold()) if len(node["column_names"]) <= 2 else None
    parts, lists = _passed(node)
    depths = [found for part in parts if (found := depth(part, records)) is not None]
    found = max(depths) + lists if depths else -1
    return found if 0 <= found <= _MOST_LISTS else None


def carriers(node: Node) -> Iterator[Node]:
    """Yield the column references whose values an expression may give, each unchanged."""
    if node.get("class") == "COLUMN_REF":
        yield node
    for part in _passed(node)[0]:
        yield from carriers(part)


def is_of_groups(node: Node) -> bool:
    """Return whether the expression is an aggregate that gives one of its records."""
    name = str(node.get("function_name", "")).casefold()
    return node.get("class") == "FUNCTION" and name in _OF_GROUPS | _LISTS


def looked_for(node: Node) -> list[Node]:
    """Return the operands of which a node only finds out whether they are null."""
    if node.get("class") == "OPERATOR" and node["type"] in _PRESENCE:
        children: list[Node] = node["children"]
        return children
    name = str(node.get("function_name", "")).casefold()
    return arguments(node) if name == "count" and not node.get("distinct") else []


def with_aliases(tree: Node, records: Records) -> Records:
    """Return the columns that hold records anywhere in a query, by the names that it gives them."""
    known = dict(records)
    selects = [node for node in nodes(tree) if node.get("type") == "SELECT_NODE"]
    renamed = list(renamed_columns(tree))
    while True:
        before = len(known)
        for select in selects:
            for name, item in _named(select):
                _add(known, name, item)
        for names, select in renamed:
            for name, item in zip(names, select["select_list"], strict=False):
                _add(known, name, item)
        if len(known) == before:
            return known


def with_rows(tree: Node, rows: Iterable[str], records: Records) -> frozenset[str]:
    """Return the tables of a query, casefolded, whose rows hold a record; `rows` are the known."""
    known = set(rows)
    named: set[str] = set()
    for node in nodes(tree):
        if node.get("type") == "BASE_TABLE" and node["table_name"].casefold() in known:
            known.add(node["alias"].casefold())
        if node.get("type") == "SELECT_NODE":
            named.update(name.casefold() for name, _ in _named(node))
        for name, query in _inner(node):
            if query["type"] == "SELECT_NODE" and _holds_record(query, known, records):
                known.add(name.casefold())
    return frozenset(known - named - {""})


def _holds_record(select: Node, rows: set[str], records: Records) -> bool:
    table = select["from_table"]
    of_rows = table["type"] == "BASE_TABLE" and table["table_name"].casefold() in rows
    return any(
        of_rows if item["type"] == "STAR" else depth(item, records) is not None
        for item in select["select_list"]
    )


def _inner(node: Node) -> Iterator[tuple[str, Node]]:
    """Yield the queries that a node names."""
    if node.get("type") == "SUBQUERY" and "class" not in node:
        yield node["alias"], node["subquery"]["node"]
    for entry in (node.get("cte_map") or {}).get("map", ()):
        inner = entry["value"]
        yield entry["key"], inner["query"]["node"] if "query" in inner else inner["query_node"]


def _add(known: dict[str, int], name: str, item: Node) -> None:
    found = depth(item, known)
    if found is not None and name:
        known.setdefault(name.casefold(), found)


def _named(select: Node) -> Iterator[tuple[str, Node]]:
    for item in select["select_list"]:
        if item["type"] == "STAR":
            yield from ((one["key"], one["value"]) for one in item.get("replace_list") or ())
        else:
            yield item["alias"] or _last_name(item), item


def renamed_columns(tree: Node) -> Iterator[tuple[list[str], Node]]:
    """Yield the names that a query gives to the columns of another one, as in `t(a, b)`."""
    for node in nodes(tree):
        if node.get("type") == "SUBQUERY" and node.get("column_name_alias"):
            yield from _with_list(node["column_name_alias"], node["subquery"]["node"])
        for entry in (node.get("cte_map") or {}).get("map", ()):
            inner = entry["value"]
            query = inner["query"]["node"] if "query" in inner else inner["query_node"]
            if inner["aliases"]:
                yield from _with_list(inner["aliases"], query)


def _with_list(names: list[str], query: Node) -> Iterator[tuple[list[str], Node]]:
    if query["type"] == "SELECT_NODE":
        yield names, query


def _last_name(node: Node) -> str:
    return str((node.get("column_names") or [""])[-1])


def _passed(node: Node) -> tuple[list[Node], int]:
    """Return the parts that an expression gives unchanged, and how many lists it puts around."""
    kind = node.get("class")
    parts: list[Node] = []
    lists = 0
    if kind == "CASE":
        parts = [*(check["then_expr"] for check in node["case_checks"]), node["else_expr"]]
    elif kind == "OPERATOR" and node["type"] == "OPERATOR_COALESCE":
        parts = node["children"]
    elif kind == "OPERATOR" and node["type"] == "ARRAY_EXTRACT":
        parts, lists = node["children"][:1], -1
    elif kind == "SUBQUERY" and node["subquery_type"] == "SCALAR":
        parts = node["subquery"]["node"].get("select_list", [])[:1]
    elif kind in {"FUNCTION", "WINDOW"} and not node.get("distinct"):
        parts, lists = _passed_by(str(node["function_name"]).casefold(), arguments(node))
    return parts, lists


def _passed_by(function: str, given: list[Node]) -> tuple[list[Node], int]:
    parts = given[:1]
    lists = 0
    if function == "if":
        parts = given[1:]
    elif function in {"lag", "lead"}:
        parts = [*given[:1], *given[2:]]
    elif function == "list_value":
        parts, lists = given, 1
    elif function in _LISTS:
        lists = 1
    elif function in _ELEMENTS:
        lists = -1
    elif function in _OF_GROUPS:
        lists = int(len(given) == _ARGUMENTS_WITH_COUNT)
    elif function not in _OF_WINDOWS:
        parts = []
    return parts, lists
