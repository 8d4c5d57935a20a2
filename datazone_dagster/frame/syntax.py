"""SQL text to DuckDB's own syntax tree and back: the only way expressions are read or changed.

DuckDB parses and prints the tree (`json_serialize_sql`, `json_deserialize_sql`), so what we
understand is what it executes. Where versions differ (constants, function arguments), both
forms are read here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from datazone_dagster.errors import ExpressionError

Node = dict[str, Any]
"""One node of the tree, as JSON."""

Ask = Callable[[str, str], str]
"""Runs a one-parameter query of one text value on some DuckDB connection."""

_PARSE = "SELECT json_serialize_sql(?::VARCHAR)::VARCHAR"
_PRINT = "SELECT json_deserialize_sql(?::JSON)"
_EMPTY_ROW_GROUPS = (
    "where_clause",
    "group_expressions",
    "group_sets",
    "having",
    "qualify",
    "sample",
)


def quoted(name: str) -> str:
    """A name as an SQL identifier, whatever characters it holds."""
    return '"' + name.replace('"', '""') + '"'


def text_literal(text: str) -> str:
    """A text as SQL; a zero in it, which would end the SQL in DuckDB 1, by its number."""
    parts = ["'" + part.replace("'", "''") + "'" for part in text.split("\0")]
    return parts[0] if len(parts) == 1 else "(" + " || chr(0) || ".join(parts) + ")"


def parse_query(ask: Ask, query: str, *, call: str) -> Node:
    """The tree of one SELECT statement.

    Raises:
        ExpressionError: Not SQL, not a SELECT, or more than one statement.
    """
    if not isinstance(query, str):
        raise ExpressionError(f"{call}: the SQL must be a text, not {type(query).__name__}.")
    tree = json.loads(ask(_PARSE, query))
    if tree["error"]:
        reason = str(tree["error_message"]).splitlines()[0]
        if "Only SELECT" in reason:
            reason = "only SELECT statements are possible here"
        raise ExpressionError(f"{call}: {reason}.", hint='Attribute names are quoted with ".')
    statements = tree["statements"]
    if len(statements) != 1:
        raise ExpressionError(f"{call}: one statement is expected, not {len(statements)}.")
    node: Node = statements[0]["node"]
    return node


def parse_expressions(ask: Ask, text: str, *, call: str) -> list[Node]:
    """The trees of a comma-separated list of expressions, aliases included.

    Raises:
        ExpressionError: It does not parse, or it is more than a list of expressions.
    """
    if not isinstance(text, str):
        raise ExpressionError(
            f"{call}: an expression is a text, not {type(text).__name__}.",
            hint='Write select("a", "b as c"); a list is unpacked with *.',
        )
    # the line break ends a trailing comment of the user's
    node = parse_query(ask, f"SELECT {text}\n", call=call)
    bare = (
        node["type"] == "SELECT_NODE"
        and node["from_table"]["type"] == "EMPTY"
        and not any(node[part] for part in _EMPTY_ROW_GROUPS)
        and not node["modifiers"]
        and not node["cte_map"]["map"]
        and node["aggregate_handling"] == "STANDARD_HANDLING"
    )
    if not bare:
        raise ExpressionError(
            f"{call}: this is more than expressions.",
            hint="Use filter() for conditions and sql() for whole queries.",
        )
    items: list[Node] = node["select_list"]
    return items


def print_query(ask: Ask, node: Node) -> str:
    """The SQL text of a query tree."""
    tree = {"error": False, "statements": [{"node": node, "named_param_map": []}]}
    return ask(_PRINT, json.dumps(tree))


def print_expressions(ask: Ask, items: list[Node]) -> str:
    """The SQL text of a select list."""
    node = json.loads(ask(_PARSE, "SELECT 1"))["statements"][0]["node"]
    return print_query(ask, {**node, "select_list": items}).removeprefix("SELECT ")


def constant_text(node: Node) -> str | None:
    """The value of a string constant, None for every other node."""
    if node.get("class") != "CONSTANT":
        return None
    literal = node.get("literal")  # DuckDB 2
    if literal is not None:
        return str(literal["text"]) if literal["kind"] == "STRING" else None
    value = node["value"]  # DuckDB 1
    return str(value["value"]) if value["type"]["id"] == "VARCHAR" else None


def nodes(tree: object, *, subqueries: bool = True) -> Iterator[Node]:
    """Every expression and table node below and including `tree`.

    Args:
        tree: Any part of a syntax tree.
        subqueries: Whether those of the queries in it are among them.
    """
    if isinstance(tree, list):
        for part in tree:
            yield from nodes(part, subqueries=subqueries)
    elif isinstance(tree, dict):
        if "class" in tree or "type" in tree:
            yield tree
        for key, part in tree.items():
            if isinstance(part, (dict, list)) and (subqueries or key != "subquery"):
                yield from nodes(part, subqueries=subqueries)
