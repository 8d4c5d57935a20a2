"""A frame as Spark SQL: what the function returned, without a row of it being read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from datazone_dagster.errors import DefinitionError
from datazone_dagster.frame.expressions import PREVIOUS
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.record_view import record_depth
from datazone_dagster.frame.relation_plan import Plan
from datazone_dagster.frame.syntax import Node, parse_query, print_query
from datazone_dagster.model.column_names import HIDDEN
from datazone_dagster.spark.functions import NotTheSameError
from datazone_dagster.spark.record_sql import RecordView, record_view
from datazone_dagster.spark.spark_text import name_of, type_of
from datazone_dagster.spark.translate import Stage, to_type, translated

SAFE = "Nothing was applied; the change log keeps the changes."


@dataclass(frozen=True)
class FrameQuery:
    """Spark SQL of a frame.

    Args:
        view: View of the stream record.
        stages: SELECTs, each from the relation `dz_stage_<number>` of the stage before it;
            `dz_stage_0` is the record.
        columns: Select list of the frame's columns over the last stage, in `schema`'s types.
        schema: Columns of the result, with the hidden ones at the end.
    """

    view: RecordView
    stages: tuple[str, ...]
    columns: tuple[str, ...]
    schema: pa.Schema


def relation(number: int) -> str:
    """Return the name of the relation of a stage."""
    return f"dz_stage_{number}"


def frame_query(
    frame: Frame, names: Sequence[str], result: pa.Schema, carried: Sequence[str], where: str
) -> FrameQuery:
    """Translate a frame.

    Args:
        frame: The frame, unread and row-wise.
        names: Its columns that a dataset takes.
        result: Schema of its rows in a dataset: these columns, then the hidden ones.
        carried: Columns that every stage has besides.
        where: The dataset, for errors.

    Raises:
        DefinitionError: An expression or a type has no equal in Spark.
    """
    plan = frame.plan
    try:
        view = record_view(plan.needs, plan.names)
    except ValueError as error:
        raise _refused(where, str(error), "") from error
    stages = []
    for number in range(len(plan.stages)):
        before = replace(plan, stages=plan.stages[:number])
        call = plan.calls[number]
        try:
            stage = _stage(before, plan.stages[number], call)
            stages.append(translated(stage, relation(number), carried))
        except NotTheSameError as error:
            raise _refused(where, str(error), call) from error
    columns = []
    types = dict(plan.session.columns(plan.query()))
    for name, field in zip(names, result, strict=False):
        kind = None if record_depth(types[name]) is not None else type_of(field.type)
        if kind is None:
            raise _refused(where, f"column {name!r} has the type {field.type}", "")
        columns.append(f"CAST({name_of(name)} AS {kind}) AS {name_of(field.name)}")
    return FrameQuery(view, tuple(stages), tuple(columns), result)


def _refused(where: str, what: str, call: str) -> DefinitionError:
    at = f"{call}: " if call else ""
    return DefinitionError(
        f"{where}: a SparkEngine can't evaluate its function as DuckDB does: {at}{what}.",
        safe=SAFE,
        hint="Write it in another way (the page 'Apply with Spark' of the documentation lists what "
        "there is), do it downstream of the dataset, or leave engine out.",
    )


def _stage(before: Plan, text: str, call: str) -> Stage:
    """Return a stage with the types of its expressions, which DuckDB binds."""
    session = before.session
    tree = _without_source(parse_query(session.ask, text, call=call), before.source)
    bound = session.columns(before.query())
    typed = to_type(tree)
    types: list[str] = []
    if typed:
        listed = [{**node, "alias": f"t{number}"} for number, node in enumerate(typed)]
        asked = {**tree, "select_list": listed, "where_clause": None}
        head, _, tail = print_query(session.ask, asked).partition(PREVIOUS)
        found = session.types(f"{head}({before.query()}){tail}")
        if found is None:
            raise NotTheSameError(
                "a part of it can't be typed by itself, such as one with the name of another "
                "column of the same SELECT; give that column its name in a select() before"
            )
        types = found
    return Stage(
        tree,
        [name for name, _ in bound if name not in HIDDEN],
        before.source,
        {id(node): kind for node, kind in zip(typed, types, strict=True)},
    )


def _without_source(tree: Node, source: str) -> Node:
    """Return a stage that reads the one before it directly, instead of through `WITH changes`."""
    table, ctes = tree["from_table"], tree["cte_map"]["map"]
    names = [str(entry["key"]).casefold() for entry in ctes]
    if tree["type"] != "SELECT_NODE" or table.get("type") != "BASE_TABLE" or len(names) > 1:
        raise NotTheSameError("only SELECT ... FROM changes WHERE ... is supported")
    if names == [source.casefold()]:
        inner = ctes[0]["value"]
        inner = inner.get("query_node") or inner["query"]["node"]
        if table.get("alias", "") not in {"", source}:
            raise NotTheSameError("an alias of changes is not supported")
        return {
            **tree,
            "from_table": {**inner["from_table"], "alias": source},
            "cte_map": {"map": []},
        }
    return tree
