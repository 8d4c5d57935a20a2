"""SQL that computes a row from changes of several keys, found in its syntax tree.

A function sees one chunk. In merge and history mode the rows of a key are replaced when that key
changes, so a sum over several keys would be the sum over those that happen to be in the chunk. SQL
over the changes of one key is fine: an aggregate grouped by the complete key, a window partitioned
by it. Which attributes make the complete key is known with the changes only, so each operation
is noted with the attributes that it keeps apart.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from datazone_dagster.frame.rewrite import chain_of
from datazone_dagster.frame.sql_functions import functions_called, macro_trees
from datazone_dagster.frame.syntax import Node, nodes
from datazone_dagster.model.column_names import KEY

COMPLETE_KEY = "\0key"
"""Stands for the attributes of the key in a `Columns`."""

RECORD = "\0record"
"""Stands for the stream record, whose paths lead to attributes."""

Columns = Mapping[str, str]
"""Columns, casefolded, that are exactly an attribute, the complete key, or the record."""

OF_RECORDS: Columns = {KEY: COMPLETE_KEY, "dynamodb": RECORD}


_OF_A_CHUNK = frozenset({"avg", "count", "count_star", "lag", "mean", "product", "sum"})
"""Functions over the changes of a key whose value is another one where the chunk begins later."""


@dataclass(frozen=True, slots=True)
class Mixing:
    """An operation over the changes of several rows.

    Args:
        call: Call as the user wrote it.
        operation: The operation in words.
        apart: Attributes whose values it keeps apart; may have `COMPLETE_KEY`.
        of_chunk: Function, such as `lag()`, whose value depends on where the chunk begins.
    """

    call: str
    operation: str
    apart: frozenset[str]
    of_chunk: str = ""

    def keeps_apart(self, key_attributes: frozenset[str]) -> bool:
        """Return whether no row comes from changes of several keys."""
        return COMPLETE_KEY in self.apart or (bool(key_attributes) and key_attributes <= self.apart)


def windows_in(call: str, items: object, columns: Columns) -> list[Mixing]:
    """Return the window functions of expressions."""
    return [
        Mixing(
            call,
            f"the window function {str(part['function_name']).lower()}()",
            _known(attribute_of(one, columns) for one in part["partitions"]),
            _of_chunk([part["function_name"]]),
        )
        for part in _own_nodes(items)
        if part.get("class") == "WINDOW"
    ]


def attribute_of(node: Node, columns: Columns) -> str | None:
    """Return what an expression is exactly, as in `Columns`; None for anything else."""
    chain = chain_of(node)
    if chain is None:
        return None
    for at, name in enumerate(chain.names[:2]):  # a table alias may come first
        found = columns.get(name.casefold())
        if found is None:
            continue
        steps = [*chain.names[at + 1 :], *chain.steps]
        if found != RECORD:
            return None if steps else found
        if not steps:
            return RECORD
        image, attribute, *descriptor = [*steps, None]
        in_image = len(descriptor) == 2 and str(image).casefold() in {"keys", "newimage"}
        return attribute if in_image else None
    return None


@dataclass
class KeyScope:
    """Reader of one query.

    Args:
        call: Call as the user wrote it.
        found: The operations found.
    """

    call: str
    found: list[Mixing] = field(default_factory=list)

    def query(self, node: Node, tables: Mapping[str, Columns]) -> Columns | None:
        """Read a query and note its operations; return its columns, None if none is of changes.

        Args:
            node: The query.
            tables: Tables that hold changes, by casefolded name.
        """
        known = dict(tables)
        for entry in node["cte_map"]["map"]:
            inner = entry["value"]
            query = inner["query"]["node"] if "query" in inner else inner["query_node"]
            self._name(known, entry["key"], self.query(query, known), inner["aliases"])
        if node["type"] == "SELECT_NODE":
            return self._select(node, known)
        columns: list[Columns | None] = []
        for side in node.get("children") or [node.get("left"), node.get("right")]:
            if side:
                columns.append(self.query(side, known))
                # the second side of a recursive CTE reads the first one
                self._name(known, node.get("cte_name") or "", columns[0], ())
        of_changes = [one for one in columns if one is not None]
        if of_changes:
            self._modifiers(node, of_changes[0])
        # The columns of a set operation have the names of its first side.
        return columns[0] if columns and columns[0] is not None else ({} if of_changes else None)

    def _name(
        self,
        known: dict[str, Columns],
        name: str,
        columns: Columns | None,
        aliases: object,
    ) -> None:
        if columns is None:
            known.pop(name.casefold(), None)
        else:
            known[name.casefold()] = {} if aliases else columns

    def _select(self, node: Node, known: Mapping[str, Columns]) -> Columns | None:
        sources: list[tuple[str, Columns]] = []
        conditions: list[Any] = [node["where_clause"]]
        self._from(node["from_table"], known, sources, conditions)
        in_from, correlated = len(sources), []
        clauses = ("select_list", "having", "qualify", "group_expressions", "modifiers")
        expressions = [one for one in conditions if not isinstance(one, str)]
        for inner in _subqueries([*(node[part] for part in clauses), *expressions]):
            columns = self.query(inner, known)
            if columns is not None:
                sources.append(("", columns))
                correlated.append(inner.get("where_clause"))
        if not sources:
            return None
        self._sampled(node)
        joined: dict[str, str] = {}
        for _, columns in reversed(sources):
            joined |= columns
        join = "a join of changes with each other"
        if in_from > 1:
            self._note(join, _equal(conditions, joined, in_from - 1))
        for condition in correlated if in_from else correlated[1:]:
            self._note(join, _equal([condition], joined, 1))
        self._aggregates(node, joined)
        self._windows(node, joined)
        self._modifiers(node, joined)
        return _outputs(node["select_list"], joined)

    def _from(
        self,
        table: Node,
        known: Mapping[str, Columns],
        sources: list[tuple[str, Columns]],
        conditions: list[Any],
    ) -> None:
        kind = table["type"]
        if kind == "BASE_TABLE":
            columns = known.get(str(table["table_name"]).casefold())
        elif kind == "SUBQUERY":
            columns = self.query(table["subquery"]["node"], known)
        elif kind == "JOIN":
            conditions.append(table["condition"])
            conditions.extend(table.get("using_columns") or ())
            before = len(sources)
            self._from(table["left"], known, sources, conditions)
            self._from(table["right"], known, sources, conditions)
            if table["ref_type"] == "POSITIONAL" and len(sources) > before:
                self._note("a POSITIONAL JOIN", frozenset())
            return
        elif kind == "PIVOT" and table["unpivot_names"]:  # each row gives some: none are combined
            before = len(sources)
            self._from(table["source"], known, sources, conditions)
            made = {name.casefold() for name in new_columns(table)}
            sources[before:] = [
                (alias, {name: one for name, one in columns.items() if name not in made})
                for alias, columns in sources[before:]
            ]
            return
        else:  # such as PIVOT: its source is somewhere inside
            columns = None
            for inner in nodes(table):
                if inner is not table and inner.get("type") == "BASE_TABLE":
                    columns = known.get(str(inner["table_name"]).casefold(), columns)
            if columns is not None:
                self._note(f"a {kind.lower()}", frozenset())
        if columns is not None:
            self._sampled(table)
            renamed = bool(table.get("column_name_alias"))
            sources.append((str(table.get("alias") or ""), {} if renamed else columns))

    def _aggregates(self, node: Node, columns: Columns) -> None:
        select_list = node["select_list"]
        functions = [
            str(part["function_name"])
            for part in _own_nodes([select_list, node["having"], node["qualify"]])
            if part.get("class") == "FUNCTION" and is_aggregate(str(part["function_name"]))
        ]
        groups = node["group_expressions"]
        by_all = node["aggregate_handling"] == "FORCE_AGGREGATES"
        if not (functions or groups or by_all):
            return
        if by_all:
            groups = [item for item in select_list if not has_aggregate(item)]
        several = len(node["group_sets"] or ()) > 1  # ROLLUP and CUBE have totals
        apart = () if several else (_grouped(group, select_list, columns) for group in groups)
        what = f"the aggregate {functions[0]}()" if functions else "GROUP BY"
        self._note(what, _known(apart), _of_chunk(functions))

    def _windows(self, node: Node, columns: Columns) -> None:
        parts = [node["select_list"], node["qualify"], node["modifiers"]]
        self.found += windows_in(self.call, parts, columns)

    def _modifiers(self, node: Node, columns: Columns) -> None:
        for modifier in node["modifiers"]:
            if modifier["type"] == "DISTINCT_MODIFIER":
                targets = modifier["distinct_on_targets"]
                if targets:
                    apart = {attribute_of(one, columns) for one in targets}
                else:
                    apart = set(_outputs(node.get("select_list", ()), columns).values())
                self._note("DISTINCT", _known(apart))
            elif modifier["type"] in {"LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER"}:
                self._note("LIMIT", frozenset())

    def _sampled(self, node: Node) -> None:
        if node.get("sample"):
            self._note("a SAMPLE", frozenset())

    def _note(self, operation: str, apart: frozenset[str], of_chunk: str = "") -> None:
        self.found.append(Mixing(self.call, operation, apart, of_chunk))


def _outputs(select_list: list[Node], columns: Columns) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in select_list:
        if item["type"] == "STAR":
            found |= columns
            continue
        attribute = attribute_of(item, columns)
        chain = chain_of(item)
        if attribute is not None and chain is not None:
            name = item["alias"] or _path_name([*chain.names, *chain.steps])
            found[name.casefold()] = attribute
    return found


def _path_name(names: list[str | None]) -> str:
    """Return the name of an unnamed path, which is its attribute, or of a column."""
    folded = [str(name).casefold() for name in names]
    return str(names[-2] if {"keys", "newimage"} & set(folded[:-2]) else names[-1])


def _grouped(group: Node, select_list: list[Node], columns: Columns) -> str | None:
    """Return the attribute of a GROUP BY expression: a column, a position or an alias."""
    literal = group.get("literal") or {}
    value = literal.get("text") if literal else (group.get("value") or {}).get("value")
    if group.get("class") == "CONSTANT" and str(value).isdecimal():
        position = int(str(value)) - 1
        inside = 0 <= position < len(select_list)
        return attribute_of(select_list[position], columns) if inside else None
    found = attribute_of(group, columns)
    names = group.get("column_names") or []
    if found is None and len(names) == 1:
        for item in select_list:
            if str(item["alias"]).casefold() == str(names[0]).casefold():
                return attribute_of(item, columns)
    return found


def _equal(conditions: list[Any], columns: Columns, pairs: int) -> frozenset[str]:
    """Return the attributes that the conditions require to be equal, each for so many pairs."""
    found: dict[str, set[object]] = {}
    for number, condition in enumerate(conditions):
        if isinstance(condition, str):  # USING
            found.setdefault(columns.get(condition.casefold(), ""), set()).add(number)
        elif condition:
            for part in _conjuncts(condition):
                if part["type"] != "COMPARE_EQUAL":
                    continue
                sides = [part["left"], part["right"]]
                attributes = {attribute_of(side, columns) or "" for side in sides}
                pair = frozenset(_written(side) for side in sides)
                if len(attributes) == 1 and len(pair) > 1:
                    found.setdefault(attributes.pop(), set()).add(pair)
    return frozenset(name for name, held in found.items() if name and len(held) >= pairs)


def _written(column: Node) -> str:
    chain = chain_of(column)
    return "" if chain is None else repr([*map(str.casefold, chain.names), *chain.steps])


def _of_chunk(functions: Iterable[object]) -> str:
    found = (str(name).casefold() for name in functions)
    name = next((one for one in found if one in _OF_A_CHUNK), "")
    return f"{name.removesuffix('_star')}()" if name else ""


def _known(names: Iterable[str | None]) -> frozenset[str]:
    return frozenset(name for name in names if name is not None)


def new_columns(unpivot: Node) -> list[str]:
    """Return the names of the columns that an UNPIVOT makes, of values and of names."""
    names = (name for pivot in unpivot["pivots"] for name in pivot["unpivot_names"])
    return [*unpivot["unpivot_names"], *names]


def _conjuncts(node: Node) -> Iterator[Node]:
    if node.get("type") == "CONJUNCTION_AND":
        for child in node["children"]:
            yield from _conjuncts(child)
    else:
        yield node


def _subqueries(tree: object) -> Iterator[Node]:
    """Yield the queries of the subqueries in expressions, without those inside them."""
    if isinstance(tree, list):
        for part in tree:
            yield from _subqueries(part)
    elif isinstance(tree, dict):
        if tree.get("class") == "SUBQUERY":
            yield tree["subquery"]["node"]
        else:
            yield from _subqueries(list(tree.values()))


def _own_nodes(tree: object) -> Iterator[Node]:
    return nodes(tree, subqueries=False)


def has_aggregate(item: Node) -> bool:
    """Return whether an expression has an aggregate, subqueries aside."""
    return any(
        part.get("class") == "FUNCTION" and is_aggregate(str(part["function_name"]))
        for part in _own_nodes(item)
    )


@functools.cache
def is_aggregate(name: str) -> bool:
    """Return whether a function of this DuckDB is an aggregate, or a macro made of one."""
    if any(one.kind == "aggregate" for one in functions_called(name)):
        return True
    return any(has_aggregate(item) for tree in macro_trees(name) for item in tree)
