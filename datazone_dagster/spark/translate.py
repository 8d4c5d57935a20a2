"""The stages of a frame, from DuckDB's syntax tree to Spark SQL. Pure.

DuckDB has parsed and bound the stages, so their names exist and their types are known. A stage does
not drop rows here: the rows that its filter leaves out go on with `KEPT` false, because their keys
leave the dataset. What is computed for such rows is null and raises nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from datazone_dagster.frame.syntax import Node, constant_text, nodes
from datazone_dagster.model.column_names import HIDDEN
from datazone_dagster.spark.functions import (
    FUNCTIONS,
    NOT_THE_SAME,
    NotTheSameError,
    Rule,
    Typed,
    as_type,
    cast_sql,
    comparable,
    kind_of,
    spark_type,
)
from datazone_dagster.spark.nested_values import (
    contained_in,
    element_of,
    field_of,
    list_of,
    struct_of,
)
from datazone_dagster.spark.spark_text import name_of, text_of

KEPT = "_dz_kept"
"""Column with whether no filter has left the row out."""

_COMPARISONS = {
    "COMPARE_EQUAL": "=",
    "COMPARE_NOTEQUAL": "<>",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
}
_DISTINCT = {
    "COMPARE_DISTINCT_FROM": "NOT ({} <=> {})",
    "COMPARE_NOT_DISTINCT_FROM": "({} <=> {})",
}
_TYPED = {"BETWEEN", "CASE", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT"}
_TYPED |= {"FUNCTION", "OPERATOR"}


@dataclass(frozen=True)
class Stage:
    """One stage of a frame.

    Args:
        tree: Its SELECT, as DuckDB's syntax tree.
        before: Columns of the stage before it, in their order.
        source: Name of the relation in the user's SQL.
        types: Types in DuckDB of expressions over the stage before it, by `id` of the node.
    """

    tree: Node
    before: Sequence[str]
    source: str
    types: Mapping[int, str]


def to_type(tree: Node) -> list[Node]:
    """Return the expressions of a stage whose types its translation needs.

    Raises:
        NotTheSameError: The stage is more than a SELECT from the stage before it.
    """
    table = tree.get("from_table") or {}
    if (
        tree["type"] != "SELECT_NODE"
        or table.get("type") != "BASE_TABLE"
        or any(tree[clause] for clause in ("group_expressions", "having", "qualify", "sample"))
        or tree["modifiers"]
    ):
        raise NotTheSameError("only SELECT ... FROM changes WHERE ... is supported")
    return [
        node
        for node in nodes([tree["select_list"], tree["where_clause"]])
        if node.get("class") in _TYPED
    ]


def translated(stage: Stage, source: str, carried: Sequence[str]) -> str:
    """Return a stage as a Spark SELECT.

    Args:
        stage: The stage.
        source: Name of the stage before it in Spark SQL.
        carried: Columns that every stage has beside those of the frame, `KEPT` not among them.

    Raises:
        NotTheSameError: An expression may have another value in Spark.
    """
    printer = _Printer(stage)
    columns = [one for item in stage.tree["select_list"] for one in printer.columns(item)]
    kept = name_of(stage.source, KEPT)
    where = stage.tree["where_clause"]
    if where:
        kept = f"({kept} AND coalesce({printer.condition(where)}, false))"
    listed = [
        *(f"CASE WHEN {kept} THEN {sql} END AS {name_of(name)}" for name, sql in columns),
        *(f"{name_of(stage.source, name)} AS {name_of(name)}" for name in carried),
        f"{kept} AS {name_of(KEPT)}",
    ]
    return f"SELECT {', '.join(listed)} FROM {source} AS {name_of(stage.source)}"


@dataclass(frozen=True)
class _Printer:
    """Spark SQL of the expressions of a stage."""

    stage: Stage

    def columns(self, item: Node) -> list[tuple[str, str]]:
        """Return name and SQL of the columns of an item of a select list, hidden ones left out."""
        if item["class"] == "STAR":
            return self._star(item)
        sql = self.typed(item).sql
        name = item["alias"] or (item["column_names"][-1] if "column_names" in item else "")
        if name not in HIDDEN:
            return [(name, sql)]
        if item["class"] != "COLUMN_REF" or item["column_names"][-1] != name:
            raise NotTheSameError(f"the column {name} is that of the change")
        return []

    def _star(self, star: Node) -> list[tuple[str, str]]:
        if any(star.get(part) for part in ("replace_list", "rename_list", "columns", "expr")):
            raise NotTheSameError("* with REPLACE, RENAME or COLUMNS is not supported")
        excluded = {str(_excluded(one)).casefold() for one in star["exclude_list"]}
        excluded |= {
            str(one[-1] if isinstance(one, list) else one.get("column", "")).casefold()
            for one in star.get("qualified_exclude_list") or ()
        }
        return [
            (name, name_of(self.stage.source, name))
            for name in self.stage.before
            if name.casefold() not in excluded and name not in HIDDEN
        ]

    def condition(self, node: Node) -> str:
        """Return the SQL of a boolean expression."""
        found = self.typed(node)
        if found.kind.name not in {"bool", "null"}:
            raise NotTheSameError(f"{found.type} is used as a condition; compare it")
        return found.sql

    def typed(self, node: Node) -> Typed:
        """Return an expression as Spark SQL, with its type."""
        kind = node.get("class")
        make = _BY_CLASS.get(str(kind))
        if make is None:
            raise NotTheSameError(f"{str(kind).lower().replace('_', ' ')} is not supported")
        duckdb_type = self.stage.types[id(node)]
        if kind == "CONSTANT":
            return self._constant(node, duckdb_type)
        return Typed(make(self, node, duckdb_type), kind_of(duckdb_type), duckdb_type)

    def all(self, given: Sequence[Node]) -> list[Typed]:
        """Return several expressions."""
        return [self.typed(node) for node in given]

    def _constant(self, node: Node, duckdb_type: str) -> Typed:
        kind, text = kind_of(duckdb_type), constant_text(node)
        if text is not None:
            return Typed(text_of(text), kind, duckdb_type, text=text)
        if kind.name == "null":
            return Typed("NULL", kind, duckdb_type)
        value = _constant_value(node)
        sql = f"CAST({text_of(value)} AS {spark_type(duckdb_type)})"
        number = int(value) if kind.name == "integer" else None
        return Typed(sql, kind, duckdb_type, number=number)

    def _column(self, node: Node, _: str) -> str:
        names = list(map(str, node["column_names"]))
        if names[0].casefold() != self.stage.source.casefold() or len(names) == 1:
            names = [self.stage.source, *names]
        return name_of(*names)

    def _comparison(self, node: Node, _: str) -> str:
        left, right = self.all([node["left"], node["right"]])
        comparable(left, right)
        form = _DISTINCT.get(node["type"])
        if form is not None:
            return form.format(left.sql, right.sql)
        operator = _COMPARISONS.get(node["type"])
        if operator is None:
            raise NotTheSameError(f"{node['type'].lower()} is not supported")
        return f"({left.sql} {operator} {right.sql})"

    def _between(self, node: Node, _: str) -> str:
        value, lower, upper = self.all([node["input"], node["lower"], node["upper"]])
        comparable(value, lower, upper)
        negated = "NOT " if node["type"] == "COMPARE_NOT_BETWEEN" else ""
        return f"({value.sql} {negated}BETWEEN {lower.sql} AND {upper.sql})"

    def _conjunction(self, node: Node, _: str) -> str:
        operator = " AND " if node["type"] == "CONJUNCTION_AND" else " OR "
        return f"({operator.join(map(self.condition, node['children']))})"

    def _operator(self, node: Node, duckdb_type: str) -> str:
        kind, children = node["type"], node["children"]
        if kind == "OPERATOR_NOT":
            return f"(NOT {self.condition(children[0])})"
        if kind in {"OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"}:
            negated = "NOT " if kind == "OPERATOR_IS_NOT_NULL" else ""
            return f"({self.typed(children[0]).sql} IS {negated}NULL)"
        if kind == "OPERATOR_COALESCE":
            given = self.all(children)
            comparable(*given)
            return f"coalesce({', '.join(as_type(one, duckdb_type) for one in given)})"
        if kind in {"COMPARE_IN", "COMPARE_NOT_IN"}:
            value, *others = self.all(children)
            comparable(value, *others)
            negated = "NOT " if kind == "COMPARE_NOT_IN" else ""
            return f"({value.sql} {negated}IN ({', '.join(one.sql for one in others)}))"
        if kind in _PARTS:
            return _PARTS[kind](*self.all(children))
        raise NotTheSameError(f"{kind.lower().replace('_', ' ')} is not supported")

    def _case(self, node: Node, duckdb_type: str) -> str:
        parts = [
            f"WHEN {self.condition(one['when_expr'])} "
            f"THEN {as_type(self.typed(one['then_expr']), duckdb_type)}"
            for one in node["case_checks"]
        ]
        other = as_type(self.typed(node["else_expr"]), duckdb_type)
        return f"CASE {' '.join(parts)} ELSE {other} END"

    def _cast(self, node: Node, duckdb_type: str) -> str:
        if node["try_cast"]:
            raise NotTheSameError("try_cast gives null for other texts; cast, or compare before")
        return cast_sql(self.typed(node["child"]), duckdb_type)

    def _function(self, node: Node, duckdb_type: str) -> str:
        name = str(node["function_name"]).casefold()
        rule = FUNCTIONS.get(name) or _OF_LISTS.get(name)
        arguments = node.get("arguments") or node.get("children") or ()
        names = [str(one.get("name") or one.get("alias") or "") for one in arguments]
        if rule is None and name != "struct_pack":
            reason = NOT_THE_SAME.get(name)
            raise NotTheSameError(
                f"{name}: {reason}" if reason else f"the function {name} is not supported"
            )
        try:
            values = self.all([one.get("expression", one) for one in arguments])
            return struct_of(names, values) if rule is None else rule(values, duckdb_type)
        except NotTheSameError as error:
            raise NotTheSameError(f"{name}: {error}") from None


def _constant_value(node: Node) -> str:
    """Return the text of a constant number or truth value."""
    literal = node.get("literal")
    if literal is not None:  # DuckDB 2
        return str(literal["text"])
    value = node["value"]  # DuckDB 1
    info = value["type"].get("type_info") or {}
    if isinstance(value["value"], bool):
        return str(value["value"]).lower()
    return str(Decimal(str(value["value"])).scaleb(-int(info.get("scale", 0))))


def _excluded(one: object) -> object:
    return one.get("column") if isinstance(one, dict) else one


_PARTS = {"STRUCT_EXTRACT": field_of, "ARRAY_EXTRACT": element_of}
_OF_LISTS: Mapping[str, Rule] = {
    "list_value": list_of,
    **dict.fromkeys(("list_contains", "array_contains", "list_has", "array_has"), contained_in),
}

_BY_CLASS: Mapping[str, Callable[[_Printer, Node, str], str]] = {
    "BETWEEN": _Printer._between,
    "CASE": _Printer._case,
    "CAST": _Printer._cast,
    "COLUMN_REF": _Printer._column,
    "COMPARISON": _Printer._comparison,
    "CONJUNCTION": _Printer._conjunction,
    "CONSTANT": lambda *_: "",
    "FUNCTION": _Printer._function,
    "OPERATOR": _Printer._operator,
}
