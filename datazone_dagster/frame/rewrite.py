"""Replacement of the image paths in an expression by generated fields."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from datazone_dagster.errors import ExpressionError
from datazone_dagster.frame.paths import PathError, Step, resolve
from datazone_dagster.frame.record_view import FIELDS, IMAGES, FieldNames, record_value
from datazone_dagster.frame.syntax import Ask, Node, constant_text, parse_expressions, quoted
from datazone_dagster.model.column_names import RESERVED_PREFIX

_EXTRACTS = {"STRUCT_EXTRACT", "ARRAY_EXTRACT"}
_LIST_FUNCTIONS = {"unnest", "len", "length", "flatten", "cardinality"}
_FIELDS_FOLDED = {name.casefold(): name for name in FIELDS}


class Chain(NamedTuple):
    """A column and the steps into it; `nodes` are the column and its extracts, outermost last."""

    names: list[str]
    steps: list[Step]
    nodes: list[Node]


@dataclass
class PathRewriter:
    """Rewriter for the trees of one call that collects the record fields that they need.

    Args:
        records: Columns that hold the record (usually `dynamodb`).
        names: Generated names of the chunk.
        call: Call as the user wrote it, for errors.
        ask: Runs a query of one text.
    """

    records: Iterable[str]
    names: FieldNames
    call: str
    ask: Ask
    needs: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._records = {name.casefold() for name in self.records}

    def rewrite(self, tree: Any, *, as_list: bool = False) -> Any:
        """Return a copy of a tree with all paths into images replaced.

        A record that is part of an expression becomes the struct that users get. As an output of
        its own it stays what paths lead into.

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
        if str(tree.get("function_name", "")).casefold().startswith(RESERVED_PREFIX):
            raise ExpressionError(
                f"{self.call}: there is no function {tree['function_name']!r}.",
                hint=f"Names that start with {RESERVED_PREFIX!r} are reserved.",
            )
        chain = chain_of(tree)
        steps = None if chain is None else self._into_record(chain)
        if chain is not None and steps is not None:
            return self._path(chain, steps, as_list=as_list) if steps else self._full(tree)
        if "class" in tree:  # the wrapper of a function argument has no class: keep the outer value
            as_list = _takes_list(tree)
        return {
            key: [self.rewrite_output(item) for item in part]
            if key == "select_list"
            else self.rewrite(part, as_list=as_list)
            for key, part in tree.items()
        }

    def rewrite_output(self, item: Node) -> Node:
        """Return a copy of an item of a select list, as `rewrite` does.

        Raises:
            ExpressionError: As for `rewrite`.
        """
        chain = chain_of(item)
        is_record = chain is not None and self._into_record(chain) == []
        rewritten: Node = item if is_record else self.rewrite(item)
        return rewritten

    def output_name(self, item: Node) -> str | None:
        """Return the last attribute of a path as its name, None for any other expression."""
        chain = chain_of(item)
        if chain is None:
            return None
        steps = self._into_record(chain)
        if steps is None or not steps or steps[0] is None:
            return None
        name = _FIELDS_FOLDED.get(steps[0].casefold())
        if name in IMAGES and len(steps) > 1:
            return resolve(name, steps[1:]).attribute
        return name

    def _into_record(self, chain: Chain) -> list[Step] | None:
        """Return the steps below the record, None if the chain does not lead into a record."""
        for position, name in enumerate(chain.names[:2]):  # a table alias may come first
            if name.casefold() in self._records:
                return [*chain.names[position + 1 :], *chain.steps]
        return None

    def _full(self, record: Node) -> Node:
        """Return the struct that users get for a record column."""
        self.names.read(FIELDS)
        self.needs.update(FIELDS)
        column = ".".join(quoted(name) for name in record["column_names"])
        (struct,) = parse_expressions(self.ask, record_value(column), call=self.call)
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
            return chain.nodes[-1]
        try:
            path, covered, _ = resolve(name, image_steps, as_list=as_list)
        except PathError as error:
            raise ExpressionError(
                f"{self.call}: in dynamodb.{name}, {error}.",
                hint='A path reads dynamodb.NewImage.<attribute>.<type>; quote names like "a b".',
            ) from error
        generated = self.names.name(path)
        self.needs.add(generated)
        qualifier = chain.names[: len(chain.names) - (len(steps) - len(chain.steps))]
        base = {**_column_of(chain.nodes), "column_names": [*qualifier, generated]}
        return self._rebuilt(base, chain, len(image_steps) - covered)

    def _rebuilt(self, base: Node, chain: Chain, outer: int) -> Node:
        """Wrap the generated column in the extracts that the path leaves to DuckDB."""
        node = base
        for extract in chain.nodes[len(chain.nodes) - outer :]:
            subject, index = extract["children"]
            del subject
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
