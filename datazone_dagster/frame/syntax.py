"""Conversion of SQL text to DuckDB's own syntax tree and back.

Expressions are read and changed only through this tree. DuckDB itself parses and prints it
(`json_serialize_sql`, `json_deserialize_sql`), so DuckDB executes exactly what this package
understood. If DuckDB versions differ in a form (constants, function arguments), both forms are
read here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from datazone_dagster.errors import ExpressionError

Node = dict[str, Any]
"""One node of the syntax tree, as JSON."""

Ask = Callable[[str, str], str]
"""Runs a query with one text parameter on a DuckDB connection and returns its text."""

_PARSE = "SELECT json_serialize_sql(?::VARCHAR)::VARCHAR"
_PRINT = "SELECT json_deserialize_sql(?::JSON)"
_ABSENT_CLAUSES = (
    "where_clause",
    "group_expressions",
    "group_sets",
    "having",
    "qualify",
    "sample",
)


def quoted(name: str) -> str:
    """Quote a name of any characters as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def text_literal(text: str) -> str:
    """Quote a text as SQL; write a zero, which would end the SQL in DuckDB 1, as chr(0)."""
    parts = ["'" + part.replace("'", "''") + "'" for part in text.split("\0")]
    return parts[0] if len(parts) == 1 else "(" + " || chr(0) || ".join(parts) + ")"


def parse_query(ask: Ask, query: str, *, call: str) -> Node:
    """Parse one SELECT statement.

    Raises:
        ExpressionError: The text is not SQL, not a SELECT, or more than one statement.
    """
    if not isinstance(query, str):
        raise ExpressionError(f"{call}: the SQL must be a string, not {type(query).__name__}.")
    tree = json.loads(ask(_PARSE, query))
    if tree["error"]:
        reason = str(tree["error_message"]).splitlines()[0]
        if "Only SELECT" in reason:
            reason = "only SELECT statements are allowed"
        hint = 'Quote attribute names with ".'
        if "in front of a star" in reason or 'near "*"' in reason:
            hint = "items() makes columns of all attributes; dynamodb.* has the record's fields."
        raise ExpressionError(f"{call}: {reason}.", hint=hint)
    statements = tree["statements"]
    if len(statements) != 1:
        raise ExpressionError(f"{call}: one statement is expected, not {len(statements)}.")
    node: Node = statements[0]["node"]
    return node


def parse_expressions(ask: Ask, text: str, *, call: str) -> list[Node]:
    """Parse a comma-separated list of expressions, aliases included.

    Raises:
        ExpressionError: The text does not parse, or is more than a list of expressions.
    """
    if not isinstance(text, str):
        raise ExpressionError(
            f"{call}: an expression must be a string, not {type(text).__name__}.",
            hint='Write filter("a > 5").'
            if call.startswith("filter(")
            else 'Write select("a", "b as c"); unpack a list with *.',
        )
    # the line break ends a trailing comment in the user's text
    node = parse_query(ask, f"SELECT {text}\n", call=call)
    bare = (
        node["type"] == "SELECT_NODE"
        and node["from_table"]["type"] == "EMPTY"
        and not any(node[clause] for clause in _ABSENT_CLAUSES)
        and not node["modifiers"]
        and not node["cte_map"]["map"]
        and node["aggregate_handling"] == "STANDARD_HANDLING"
    )
    if not bare:
        raise ExpressionError(
            f"{call}: the text is more than expressions.",
            hint="Use filter() for conditions and sql() for full queries.",
        )
    items: list[Node] = node["select_list"]
    return items


def print_query(ask: Ask, node: Node) -> str:
    """Return the SQL text of a query tree."""
    tree = {"error": False, "statements": [{"node": node, "named_param_map": []}]}
    return ask(_PRINT, json.dumps(tree))


def print_expressions(ask: Ask, items: list[Node]) -> str:
    """Return the SQL text of a select list."""
    node = json.loads(ask(_PARSE, "SELECT 1"))["statements"][0]["node"]
    return print_query(ask, {**node, "select_list": items}).removeprefix("SELECT ")


def constant_text(node: Node) -> str | None:
    """Return the value of a string constant, None for any other node."""
    if node.get("class") != "CONSTANT":
        return None
    literal = node.get("literal")  # DuckDB 2
    if literal is not None:
        return str(literal["text"]) if literal["kind"] == "STRING" else None
    value = node["value"]  # DuckDB 1
    return str(value["value"]) if value["type"]["id"] == "VARCHAR" else None


def with_constant_text(node: Node, text: str) -> Node:
    """Return a copy of a string constant with another text."""
    form = "literal" if node.get("literal") is not None else "value"
    return {**node, form: {**node[form], ("text" if form == "literal" else "value"): text}}


def nodes(tree: object, *, subqueries: bool = True) -> Iterator[Node]:
    """Yield every expression and table node in a tree, its root included.

    Args:
        tree: Any subtree of a syntax tree.
        subqueries: Whether to include the nodes of subqueries.
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


def last_names(tree: object) -> set[str]:
    """Return the last name of each column reference of a tree: without tables and structs."""
    return {
        str(node["column_names"][-1]) for node in nodes(tree) if node.get("class") == "COLUMN_REF"
    }


def column_names(tree: object) -> set[str]:
    """Return the names in the column references of a tree, those of tables included."""
    return {
        str(name)
        for node in nodes(tree)
        if node.get("class") == "COLUMN_REF"
        for name in node["column_names"]
    }
