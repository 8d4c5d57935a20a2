"""Replacement of the image paths in an expression by generated fields."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import duckdb

from datazone_dagster.errors import ExpressionError
from datazone_dagster.frame.paths import PathError, Step, resolve
from datazone_dagster.frame.record_flow import (
    Records,
    arguments,
    carriers,
    depth,
    is_of_groups,
    looked_for,
)
from datazone_dagster.frame.record_view import (
    FIELDS,
    IMAGES,
    FieldNames,
    list_of_record_values,
    record_value,
)
from datazone_dagster.frame.syntax import (
    Ask,
    Node,
    constant_text,
    nodes,
    parse_expressions,
    print_expressions,
    quoted,
    text_literal,
    with_constant_text,
)
from datazone_dagster.model.column_names import RESERVED_PREFIX

_EXTRACTS = {"STRUCT_EXTRACT", "ARRAY_EXTRACT"}
_LIST_FUNCTIONS = {"unnest", "len", "length", "flatten", "cardinality"}
_OF_SQL_TEXT = {"json_execute_serialized_sql", "query", "query_table"}
"""Table functions that run an SQL text, or read a table by its name."""

_FIELDS_FOLDED = {name.casefold(): name for name in FIELDS}


class Chain(NamedTuple):
    """A column and the steps into it; `nodes` are the column and its extracts, outermost last.

    A path may also lead into an expression that gives a record: then there are no `names`.
    """

    names: list[str]
    steps: list[Step]
    nodes: list[Node]


@dataclass
class PathRewriter:
    """Rewriter for the trees of one call that collects the record fields that they need.

    Args:
        records: Columns that hold the record (usually `dynamodb`), or a list of records.
        names: Generated names of the chunk.
        call: Call as the user wrote it, for errors.
        ask: Runs a query of one text.
        rows: Names of the tables whose rows hold a record.
    """

    records: Records
    names: FieldNames
    call: str
    ask: Ask
    rows: frozenset[str] = frozenset()
    needs: set[str] = field(default_factory=set)
    _kept: set[int] = field(default_factory=set)
    _operands: set[int] = field(default_factory=set)

    def rewrite(self, tree: Any, *, as_list: bool = False) -> Any:
        """Return a copy of a tree with all paths into images replaced.

        A record that is part of an expression becomes the struct that users get. As an output, also
        of `lag(dynamodb)` and the like (`frame.record_flow`), it stays what paths lead into.

        Raises:
            ExpressionError: A path is impossible in DynamoDB JSON, or a table name is reserved.
        """
        if isinstance(tree, list):
            return [self.rewrite(part, as_list=as_list) for part in tree]
        if not isinstance(tree, dict):
            return tree
        if str(tree.get("table_name", "")).casefold().startswith(RESERVED_PREFIX):
            raise ExpressionError(
                f"{self.call}: there is no table {tree['table_name']!r}.",
                hint=f"Names that start with {RESERVED_PREFIX!r} are reserved; in sql() the chunk "
                "is the table changes.",
            )
        if str(tree.get("function_name", "")).casefold() in _OF_SQL_TEXT:
            raise ExpressionError(
                f"{self.call}: {tree['function_name']}() runs SQL that the frame can't check.",
                hint="Write that SQL itself, as a subquery or WITH.",
            )
        if str(tree.get("function_name", "")).casefold().startswith(RESERVED_PREFIX):
            raise ExpressionError(
                f"{self.call}: there is no function {tree['function_name']!r}.",
                hint=f"Names that start with {RESERVED_PREFIX!r} are reserved.",
            )
        if id(tree) in self._kept and tree["class"] == "COLUMN_REF":
            return tree
        chain = self._into_expression(tree) or chain_of(tree)
        steps = None if chain is None else self._into_record(chain)
        if chain is not None and steps is not None:
            return self._path(chain, steps, as_list=as_list) if steps else self._full(tree)
        if tree.get("class") == "COLUMN_REF" and depth(tree, self.records) is not None:
            return self._full(tree, of_list=True)
        if chain is not None and [*map(str.casefold, chain.names)] in [[row] for row in self.rows]:
            raise ExpressionError(
                f"{self.call}: {chain.names[0]} is a table, not a value.",
                hint="Name its columns: to_json({'event': eventName, 'record': dynamodb}).",
            )
        if "class" in tree:  # the wrapper of a function argument has no class: keep the outer value
            as_list = _takes_list(tree)
        if tree.get("class") == "FUNCTION" and not looked_for(tree):
            self._refuse_unnamed(tree)
        self._keep_records_in(tree)
        copied = {key: self.rewrite(part, as_list=as_list) for key, part in tree.items()}
        if tree.get("type") == "SELECT_NODE":
            self._name_paths(copied["select_list"], tree["select_list"])
        return copied

    def rewrite_output(self, item: Node) -> Node:
        """Return a copy of an item of a select list, as `rewrite` does.

        Raises:
            ExpressionError: As for `rewrite`.
        """
        self._keep_outputs([item])
        rewritten: Node = self.rewrite(item)
        return rewritten

    def _keep_records_in(self, node: Node) -> None:
        """Find the records that stay records: outputs, and those that are compared as a whole."""
        if node.get("class") == "SUBQUERY":  # an operand, unless the expression around it keeps it
            self._operands.add(id(node["subquery"]["node"]))
        if node.get("type") == "SELECT_NODE":
            if id(node) not in self._operands:
                self._keep_outputs(node["select_list"])
            self._compare(_compared_outputs(node))
        if node.get("type") == "SET_OPERATION_NODE" and not node["setop_all"]:
            self._compare(one for side in _last_selects(node) for one in side["select_list"])
        for clause in ("group_expressions", "distinct_on_targets"):
            self._compare(node.get(clause) or (), keep=True)
        self._compare((order["expression"] for order in node.get("orders") or ()), keep=True)
        for operand in looked_for(node):
            self._keep(operand)

    def _keep_outputs(self, items: Iterable[Node]) -> None:
        for item in items:
            for part in (item, *(one["value"] for one in item.get("replace_list") or ())):
                self._keep(part)

    def _keep(self, node: Node) -> None:
        if depth(node, self.records) is not None:
            self._kept.update(map(id, carriers(node)))

    def _refuse_unnamed(self, function: Node) -> None:
        """Refuse `columns(...)` of a record in a function: it has no name to put its value for."""
        for star in nodes(arguments(function), subqueries=False):
            found = self._record_of_columns(star) if star.get("columns") else None
            if found is not None:
                raise ExpressionError(
                    f"{self.call}: columns(...) within {function['function_name']}() takes the "
                    f"record {found}.",
                    hint=f"Name the columns, or leave it out: columns(* exclude ({found})).",
                )

    def _record_of_columns(self, star: Node) -> str | None:
        """Return a record that `columns(...)` takes; None if it takes none."""
        chosen, excluded = star["expr"], {str(name).casefold() for name in star["exclude_list"]}
        names = [name for name in self.records if name not in excluded]
        if chosen is None:
            return next(iter(names), None)
        if chosen["class"] != "CONSTANT":
            return next((name for name in names if self._chooses(chosen, name)), None)
        pattern = _constant(chosen)
        try:
            return next(
                (name for name in names if pattern and re.search(pattern, name, re.IGNORECASE)),
                None,
            )
        except re.error:  # DuckDB says what is wrong with it
            return None

    def _chooses(self, chosen: Node, name: str) -> bool:
        """Return whether an expression over the columns' names, in any case, gives a name."""
        (names,) = parse_expressions(self.ask, f"[{text_literal(name)}]", call=self.call)
        for folded in (False, True):
            listed = print_expressions(self.ask, [_over_names(chosen, names, folded=folded)])
            query = f"SELECT coalesce(list_contains({listed}, ?), false)"  # printed
            try:
                if self.ask(query, name).casefold() == "true":
                    return True
            except duckdb.Error:  # DuckDB says what is wrong with it
                return False
        return False

    def _compare(self, items: Iterable[Node], *, keep: bool = False) -> None:
        """Take all fields of the records that a query compares with each other."""
        for item in items:
            if item["type"] == "STAR" or depth(item, self.records) is not None:
                self._need_all()
                if keep:
                    self._keep(item)

    def _need_all(self) -> None:
        self.names.read(FIELDS)
        self.needs.update(FIELDS)

    def _name_paths(self, copied: list[Node], items: list[Node]) -> None:
        """Give names to the unnamed paths that a query selects, in place."""
        for copy, item in zip(copied, items, strict=True):
            if not copy["alias"]:
                copy["alias"] = self.output_name(item) or ""

    def output_name(self, item: Node) -> str | None:
        """Return the last attribute of a path as its name, None for any other expression."""
        chain = self._into_expression(item) or chain_of(item)
        if chain is None:
            return None
        steps = self._into_record(chain)
        if steps is None or not steps or steps[0] is None:
            return None
        name = _FIELDS_FOLDED.get(steps[0].casefold())
        if name in IMAGES and len(steps) > 1:
            return resolve(name, steps[1:]).attribute
        return name

    def _into_expression(self, node: Node) -> Chain | None:
        """Return a path into an expression that gives a record; None for any other expression."""
        steps: list[Step] = []
        extracts: list[Node] = []
        while node.get("class") == "OPERATOR" and node["type"] in _EXTRACTS:
            subject, index = node["children"]
            steps, extracts = [constant_text(index), *steps], [node, *extracts]
            if subject["class"] != "COLUMN_REF" and depth(subject, self.records) == 0:
                return Chain([], steps, [subject, *extracts])
            node = subject
        return None

    def _into_record(self, chain: Chain) -> list[Step] | None:
        """Return the steps below the record, None if the chain does not lead into a record."""
        if not chain.names:
            return chain.steps
        for position, name in enumerate(chain.names[:2]):  # a table alias may come first
            if self.records.get(name.casefold()) == 0:
                return [*chain.names[position + 1 :], *chain.steps]
        return None

    def _full(self, record: Node, *, of_list: bool = False) -> Node:
        """Return the struct that users get for a record column, or the list of these structs."""
        self._need_all()
        column = ".".join(quoted(name) for name in record["column_names"])
        text = list_of_record_values(column) if of_list else record_value(column)
        (struct,) = parse_expressions(self.ask, text, call=self.call)
        return {**struct, "alias": record["alias"]}

    def _path(self, chain: Chain, steps: list[Step], *, as_list: bool) -> Node:
        first = steps[0]
        name = _FIELDS_FOLDED.get(first.casefold()) if first is not None else None
        if name is None:
            raise ExpressionError(
                f"{self.call}: dynamodb has no field {first!r}.",
                hint=f"Its fields are {', '.join(FIELDS)}.",
            )
        self.names.read([name])
        image_steps = steps[1:]
        if name not in IMAGES or not image_steps:
            self.needs.add(name)
            if chain.names:
                return chain.nodes[-1]
            return self._rebuilt(self._record(chain.nodes[0]), chain, len(steps))
        try:
            path, covered, _ = resolve(name, image_steps, as_list=as_list)
        except PathError as error:
            raise ExpressionError(
                f"{self.call}: in dynamodb.{name}, {error}.",
                hint='A path reads dynamodb.NewImage.<attribute>.<type>; quote names like "a b".',
            ) from error
        generated = self.names.name(path)
        self.needs.add(generated)
        return self._rebuilt(
            self._field(chain, steps, generated), chain, len(image_steps) - covered
        )

    def _field(self, chain: Chain, steps: list[Step], generated: str) -> Node:
        """Return a generated field of the record that a path leads into."""
        if not chain.names:
            (extract,) = parse_expressions(self.ask, f"(NULL).{generated}", call=self.call)
            return {
                **extract,
                "children": [self._record(chain.nodes[0]), extract["children"][1]],
            }
        qualifier = chain.names[: len(chain.names) - (len(steps) - len(chain.steps))]
        return {**_column_of(chain.nodes), "column_names": [*qualifier, generated]}

    def _record(self, expression: Node) -> Node:
        """Return a copy of an expression that gives a record, which stays one."""
        self._keep(expression)
        record: Node = self.rewrite(expression)
        return record

    def _rebuilt(self, base: Node, chain: Chain, outer: int) -> Node:
        """Wrap the generated column in the extracts that the path leaves to DuckDB."""
        node = base
        for extract in chain.nodes[len(chain.nodes) - outer :]:
            _, index = extract["children"]
            if _constant(index) == "0":
                raise ExpressionError(
                    f"{self.call}: there is no element 0; the first one of a list is [1].",
                    hint="[-1] is the last one.",
                )
            node = {**extract, "children": [node, self.rewrite(index)]}
        return node if outer else {**node, "alias": chain.nodes[-1]["alias"]}


def chain_of(node: Node) -> Chain | None:
    """Return the column and steps of a path, None for any other expression."""
    if node.get("class") == "COLUMN_REF":
        return Chain(list(node["column_names"]), [], [node])
    if node.get("class") != "OPERATOR" or node["type"] not in _EXTRACTS:
        return None
    subject, index = node["children"]
    inner = chain_of(subject)
    if inner is None:
        return None
    return Chain(inner.names, [*inner.steps, constant_text(index)], [*inner.nodes, node])


def _over_names(tree: Any, names: Node, *, folded: bool) -> Any:
    """Return a copy of an expression with names for `*`, perhaps with casefolded texts."""
    if isinstance(tree, list):
        return [_over_names(part, names, folded=folded) for part in tree]
    if not isinstance(tree, dict):
        return tree
    if tree.get("type") == "STAR":
        return names
    text = constant_text(tree)
    if folded and text is not None:
        return with_constant_text(tree, text.casefold())
    return {key: _over_names(part, names, folded=folded) for key, part in tree.items()}


def _constant(node: Node) -> str:
    """Return the text of a constant, empty for any other node."""
    literal = node.get("literal") or node.get("value") or {}  # DuckDB 2 or 1
    return str(literal.get("text", literal.get("value", "")))


def _last_selects(query: Node) -> Iterator[Node]:
    """Yield the SELECTs whose rows a query gives: several for a UNION."""
    if query["type"] == "SELECT_NODE":
        yield query
    for side in query.get("children") or (query.get("left"), query.get("right")):
        if side:
            yield from _last_selects(side)


def _compared_outputs(select: Node) -> Iterator[Node]:
    """Yield the items of a select list that DISTINCT compares, or GROUP BY by position or ALL."""
    items: list[Node] = select["select_list"]
    distinct = [one for one in select["modifiers"] if one["type"] == "DISTINCT_MODIFIER"]
    by_all = select["aggregate_handling"] == "FORCE_AGGREGATES"
    by_position = any(one.get("class") == "CONSTANT" for one in select["group_expressions"])
    if any(not one["distinct_on_targets"] for one in distinct):
        yield from items
    elif by_all or by_position:
        yield from (item for item in items if not is_of_groups(item))


def _column_of(chain_nodes: list[Node]) -> Node:
    return {**chain_nodes[0], "alias": ""}


def _takes_list(node: Node) -> bool:
    """Return whether the node needs its arguments as lists instead of text."""
    if node.get("class") == "OPERATOR":
        return bool(node["type"] == "ARRAY_SLICE")
    if node.get("class") != "FUNCTION":
        return False
    function = str(node["function_name"]).casefold()
    return function in _LIST_FUNCTIONS or function.startswith(("list_", "array_"))
