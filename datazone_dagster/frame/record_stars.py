"""`dynamodb.*` in a select list: the fields of the record, each as a column."""

from __future__ import annotations

from typing import Any

from datazone_dagster.errors import ExpressionError
from datazone_dagster.frame.carry import column
from datazone_dagster.frame.record_flow import Records
from datazone_dagster.frame.record_view import FIELDS
from datazone_dagster.frame.syntax import Node, nodes

_OTHER_THAN_EXCLUDE = ("replace_list", "rename_list", "expr", "columns")


def with_fields(tree: Any, records: Records, *, call: str) -> Any:
    """Return a copy of a tree whose select lists have the fields of a record for `dynamodb.*`.

    Args:
        tree: Query, or list of expressions.
        records: Columns that hold the record.
        call: Call as the user wrote it, for errors.

    Raises:
        ExpressionError: The star leaves out a field that there is not, or replaces one.
    """
    tables = {
        str(node.get("alias") or node.get("table_name") or "").casefold()
        for node in nodes(tree)
        if "class" not in node
    }
    known = {name for name, depth in records.items() if depth == 0 and name not in tables}
    if isinstance(tree, list):
        return _select_list(tree, known, call)
    return _expanded(tree, known, call)


def _expanded(tree: Any, records: set[str], call: str) -> Any:
    if isinstance(tree, list):
        return [_expanded(part, records, call) for part in tree]
    if not isinstance(tree, dict):
        return tree
    if _record_of(tree) in records:
        name = tree["relation_name"]
        raise ExpressionError(
            f"{call}: {name}.* is a column of its own, not part of an expression.",
            hint=f"Name the fields, such as {name}.SequenceNumber; {name} is the full record.",
        )
    return {
        key: _select_list(part, records, call)
        if key == "select_list"
        else _expanded(part, records, call)
        for key, part in tree.items()
    }


def _select_list(items: list[Node], records: set[str], call: str) -> list[Node]:
    found: list[Node] = []
    for item in items:
        fields = _fields(item, call) if _record_of(item) in records else None
        found += [_expanded(item, records, call)] if fields is None else fields
    return found


def _record_of(node: Node) -> str:
    """Return what a `name.*` is the star of, casefolded; empty for any other node."""
    is_star = node.get("class") == "STAR"
    return str(node["relation_name"]).casefold() if is_star else ""


def _fields(star: Node, call: str) -> list[Node]:
    name = star["relation_name"]
    excluded = {str(one).casefold() for one in star["exclude_list"]}
    fields = [field for field in FIELDS if field.casefold() not in excluded]
    if len(fields) + len(excluded) > len(FIELDS):
        raise ExpressionError(
            f"{call}: {name}.* excludes a field that {name} does not have.",
            hint=f"Its fields are {', '.join(FIELDS)}.",
        )
    if any(star.get(part) for part in _OTHER_THAN_EXCLUDE) or not fields:
        raise ExpressionError(
            f"{call}: {name}.* takes EXCLUDE only, and must leave a field.",
            hint=f"Name the fields, such as {name}.SequenceNumber as number.",
        )
    return [column(field, name) for field in fields]
