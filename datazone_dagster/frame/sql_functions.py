"""Functions of this DuckDB: their kinds, as DuckDB knows them, and what its macros are made of."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

from datazone_dagster.database.database import opened
from datazone_dagster.frame.syntax import Node, nodes, parse_expressions


class Overload(NamedTuple):
    """One of the functions of a name.

    Args:
        kind: `scalar`, `aggregate`, `window` or `macro`.
        stability: `CONSISTENT`, `CONSISTENT_WITHIN_QUERY` or `VOLATILE`; empty for macros.
    """

    kind: str
    stability: str


@functools.cache
def known_functions() -> Mapping[str, frozenset[Overload]]:
    """Return all functions that an expression can call, by casefolded name."""
    with opened() as connection:
        rows = connection.execute(
            "SELECT function_name, function_type, coalesce(stability, '') FROM duckdb_functions() "
            "WHERE function_type IN ('scalar', 'aggregate', 'window', 'macro')"
        ).fetchall()
    found: dict[str, set[Overload]] = {}
    for name, kind, stability in rows:
        found.setdefault(str(name).casefold(), set()).add(Overload(str(kind), str(stability)))
    return {name: frozenset(overloads) for name, overloads in found.items()}


def functions_called(name: str) -> frozenset[Overload]:
    """Return the functions of a name, in any case; none if DuckDB knows no such name."""
    return known_functions().get(name.casefold(), frozenset())


@functools.cache
def macro_trees(name: str) -> tuple[list[Node], ...]:
    """Return the syntax trees of the definitions of a macro; none if the name is no macro.

    A definition that calls its own name stands for the function of that name: it is left out.
    """
    if not any(one.kind == "macro" for one in functions_called(name)):
        return ()
    with opened() as connection:
        definitions = connection.execute(
            "SELECT macro_definition FROM duckdb_functions() WHERE function_type = 'macro' "
            "AND lower(function_name) = ? AND macro_definition IS NOT NULL",
            [name.casefold()],
        ).fetchall()

        def ask(query: str, value: str) -> str:
            return str(connection.execute(query, [value]).fetchall()[0][0])

        trees = [parse_expressions(ask, str(text), call=name) for (text,) in definitions]
    return tuple(tree for tree in trees if not _calls(tree, name))


def _calls(tree: list[Node], name: str) -> bool:
    return any(
        str(node.get("function_name", "")).casefold() == name.casefold() for node in nodes(tree)
    )
