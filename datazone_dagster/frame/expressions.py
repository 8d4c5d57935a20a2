"""The user's expressions in a form that a query can use: paths replaced, results named."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

from datazone_dagster.errors import ExpressionError
from datazone_dagster.frame.carry import carry, exclude_hidden
from datazone_dagster.frame.key_scope import Columns, KeyScope, Mixing, attribute_of, windows_in
from datazone_dagster.frame.record_flow import Records, with_aliases, with_rows
from datazone_dagster.frame.record_stars import with_fields
from datazone_dagster.frame.record_view import FieldNames
from datazone_dagster.frame.rewrite import PathRewriter
from datazone_dagster.frame.row_wise import is_row_wise, is_row_wise_query
from datazone_dagster.frame.syntax import (
    Ask,
    Node,
    column_names,
    last_names,
    nodes,
    parse_expressions,
    parse_query,
    print_expressions,
    print_query,
)
from datazone_dagster.frame.volatile import (
    Deciding,
    VolatileColumns,
    unnests,
    volatile_in_query,
    volatile_part,
)

PREVIOUS = "_dz_previous"
"""Placeholder for the query that a stage reads."""

_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Scope:
    """Names that an expression may use.

    `source` is the relation's own name, `records` the columns that hold the stream record
    (`frame.record_flow`), `hidden` the columns that `*` leaves out, `columns` those that are
    exactly an attribute, `rows` the names of the relation as a row that holds a record. `volatile`
    are the columns with values of a volatile function, `names_of_columns` all columns, casefolded.
    """

    ask: Ask
    source: str
    records: Records
    hidden: Sequence[str]
    names: FieldNames
    columns: Columns
    rows: frozenset[str] = frozenset()
    volatile: VolatileColumns = field(default_factory=dict)
    names_of_columns: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Expression:
    """One SQL expression of a call, or its full query.

    `text` is the user's text, `sql` the executed SQL. `name` is the name of the output, empty if
    there are several outputs (`*`) or none. `row_wise` is explained in `frame.row_wise`, `columns`
    and `mixing` in `frame.key_scope`, `volatile` and `deciding` in `frame.volatile`; all columns
    are those of the output.
    """

    method: str
    text: str
    sql: str
    name: str = ""
    needs: frozenset[str] = frozenset()
    row_wise: bool = False
    columns: Columns = field(default_factory=dict)
    mixing: tuple[Mixing, ...] = ()
    volatile: VolatileColumns = field(default_factory=dict)
    deciding: tuple[Deciding, ...] = ()

    @property
    def call(self) -> str:
        """Call as an error shows it."""
        return shown_call(self.method, self.text)


def shown_call(method: str, *texts: object) -> str:
    """Format a call for an error, on one line of bounded length."""
    arguments = ", ".join(repr(" ".join(str(text).split())) for text in texts)
    if len(arguments) > _SHOWN_CHARACTERS:
        arguments = arguments[:_SHOWN_CHARACTERS] + "…"
    return f"{method}({arguments})"


def expressions(scope: Scope, method: str, texts: Sequence[str]) -> list[Expression]:
    """Read the arguments of `select` and `with_columns`.

    Raises:
        ExpressionError: An argument does not parse, or names an impossible path.
    """
    found = []
    for text in texts:
        call = shown_call(method, text)
        parsed = parse_expressions(scope.ask, text, call=call)
        items = with_fields(parsed, scope.records, call=call)
        for item in items:
            rewriter = PathRewriter(scope.records, scope.names, call, scope.ask, scope.rows)
            node = rewriter.rewrite_output(item)
            stars = [star for star in nodes(node, subqueries=False) if star.get("type") == "STAR"]
            for star in stars:
                exclude_hidden(star, scope.source, scope.hidden)
            name: str = ""
            if not stars:
                name = item["alias"] or rewriter.output_name(item) or ""
                if not name and item["class"] == "COLUMN_REF":
                    name = item["column_names"][-1]  # DuckDB then uses the column's own case
                elif not name:
                    # the user's own text: DuckDB's rendering of it differs between versions
                    name = text.strip() if len(items) == 1 else print_expressions(scope.ask, [item])
                    node = {**node, "alias": name}
                elif not item["alias"]:
                    node = {**node, "alias": name}
            sql = print_expressions(scope.ask, [node])
            needs = frozenset(rewriter.needs)
            columns = column_names(item)
            if name:
                scope.names.put_behind(name, needs, columns)
                scope.names.originate(name, last_names(node))
            function = volatile_part(item, scope.volatile, scope.names_of_columns)
            deciding: tuple[Deciding, ...] = ()
            if any(unnests(part) for part in nodes(item)):
                scope.names.decide(needs, columns)
                deciding = (Deciding(call, function),) if function else ()
            attribute = attribute_of(item, scope.columns)
            outputs = {name.casefold(): attribute} if name and attribute is not None else {}
            mixing = tuple(windows_in(call, item, scope.columns))
            found.append(
                Expression(
                    method,
                    text,
                    sql,
                    name,
                    needs,
                    is_row_wise(item),
                    scope.columns if stars else outputs,
                    mixing,
                    scope.volatile if stars else {name.casefold(): function} if function else {},
                    deciding,
                )
            )
    return found


def predicate(scope: Scope, text: str) -> Expression:
    """Read the argument of `filter`.

    Raises:
        ExpressionError: The text does not parse, or is not one expression without an alias.
    """
    call = shown_call("filter", text)
    items = parse_expressions(scope.ask, text, call=call)
    if len(items) != 1 or items[0]["alias"]:
        raise ExpressionError(f"{call}: one condition is expected.", hint="Join them with AND.")
    rewriter = PathRewriter(scope.records, scope.names, call, scope.ask, scope.rows)
    sql = print_expressions(scope.ask, [rewriter.rewrite(items[0])])
    needs = frozenset(rewriter.needs)
    scope.names.decide(needs, column_names(items[0]))
    mixing = tuple(windows_in(call, items, scope.columns))
    function = volatile_part(items, scope.volatile, scope.names_of_columns)
    return Expression(
        "filter",
        text,
        sql,
        needs=needs,
        row_wise=is_row_wise(items),
        columns=scope.columns,
        mixing=mixing,
        volatile=scope.volatile,
        deciding=(Deciding(call, function),) if function else (),
    )


def queries(scope: Scope, text: str) -> list[Expression]:
    """Read the argument of `sql`, as the queries to try, best first, each around `PREVIOUS`.

    If there are two queries, the first one also selects the hidden columns. It does not bind if
    the user's query aggregates.

    Raises:
        ExpressionError: The text is not one SELECT, or names an impossible path.
    """
    call = shown_call("sql", text)
    parsed = parse_query(scope.ask, text, call=call)
    records = with_aliases(parsed, scope.records)
    original = with_fields(parsed, records, call=call)
    rows = with_rows(original, scope.rows, records)
    rewriter = PathRewriter(records, scope.names, call, scope.ask, rows)
    plain = rewriter.rewrite(original)
    carried = copy.deepcopy(plain)
    found = [carried] if scope.hidden and carry(carried, scope.source, scope.hidden) else []
    found.append(plain)
    needs = frozenset(rewriter.needs)
    row_wise = is_row_wise_query(original, scope.source)
    deciding = _deciding_part(original, row_wise=row_wise)
    decides = PathRewriter(records, scope.names, call, scope.ask, rows)
    decides.rewrite(deciding)
    scope.names.decide(decides.needs, column_names(deciding))
    for item in original.get("select_list", ()):
        of_item = PathRewriter(records, scope.names, call, scope.ask, rows)
        rewritten = of_item.rewrite_output(item)
        name = item["alias"] or of_item.output_name(item) or ""
        scope.names.put_behind(name, of_item.needs, column_names(item))
        scope.names.originate(name, last_names(rewritten))
    volatile, decide_rows = volatile_in_query(
        original, call, scope.volatile, scope.names_of_columns
    )
    keys = KeyScope(call)
    columns = keys.query(original, {scope.source.casefold(): scope.columns}) or {}
    return [
        Expression(
            "sql",
            text,
            _over_previous(scope, node),
            needs=needs,
            row_wise=row_wise,
            columns=columns,
            mixing=tuple(keys.found),
            volatile=volatile,
            deciding=decide_rows,
        )
        for node in found
    ]


def _deciding_part(query: Node, *, row_wise: bool) -> object:
    """Return the parts of a query that decide which rows there are; all of it if unknown."""
    if not row_wise or any(unnests(part) for part in nodes(query["select_list"])):
        return query
    return query["where_clause"]


def _over_previous(scope: Scope, node: Node) -> str:
    source = f"WITH {scope.source} AS NOT MATERIALIZED (SELECT * FROM {PREVIOUS})"  # noqa: S608  # our names
    ctes = node["cte_map"]["map"]
    if any(entry["key"].casefold() == scope.source for entry in ctes):
        return f"{source} SELECT * FROM ({print_query(scope.ask, node)})"  # noqa: S608  # the user's query
    own = parse_query(scope.ask, f"{source} SELECT 1", call="sql()")["cte_map"]["map"]
    return print_query(scope.ask, {**node, "cte_map": {"map": [*own, *ctes]}})
