"""Frames as Spark SQL: what is translated, and what is refused. The results: tests/spark."""

from __future__ import annotations

import re
from collections.abc import Callable

import pyarrow as pa
import pytest

from datazone_dagster.apply.chunk import CHANGES_SCHEMA
from datazone_dagster.apply.remote_chunk import RemoteChunk
from datazone_dagster.errors import DefinitionError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.result import rows_of
from datazone_dagster.spark.frame_query import FrameQuery, frame_query
from datazone_dagster.spark.spark_text import converted
from datazone_dagster.spark.statements import LogRange, batch_query

CITY = "dynamodb.NewImage.city.S"
TOTAL = "cast(dynamodb.NewImage.total.N as decimal(12, 2))"
WIDE = "cast(dynamodb.NewImage.total.N as decimal(38, 18))"


def translated(build: Callable[[Frame], Frame]) -> FrameQuery:
    frame = build(Frame.of_changes(RemoteChunk("t", 1, 2).unread()))
    assert frame.is_row_wise
    rows = rows_of(frame.rows_of(CHANGES_SCHEMA.empty_table()), dataset_id="d", mode="merge")
    return frame_query(frame, frame.columns, rows.schema, ("_dz_key",), "Dataset 'd'")


def test_columns_filters_and_types() -> None:
    query = translated(
        lambda frame: frame.filter(f"{CITY} = 'it''s'").select(
            f"{CITY} as city", f"{TOTAL} as total", "eventName"
        )
    )
    assert query.schema.names[:3] == ["city", "total", "eventName"]
    assert query.schema.field("total").type == pa.decimal128(12, 2)
    first, second = query.stages
    assert r"= 'it\'s'" in first
    assert first.endswith("FROM dz_stage_0 AS `changes`")
    assert "CASE WHEN `changes`.`_dz_kept` THEN" in second
    assert "RLIKE" in second
    assert query.columns[1] == "CAST(`total` AS DECIMAL(12,2)) AS `total`"


def test_sql_and_with_columns_are_stages_too() -> None:
    query = translated(
        lambda frame: frame.with_columns(f"{CITY} || '!' as city").sql(
            "select city, eventID as id from changes where city is not null"
        )
    )
    assert query.schema.names[:2] == ["city", "id"]
    assert "concat(" in query.stages[0]
    assert "IS NOT NULL" in query.stages[1]


def test_lists_and_structs() -> None:
    query = translated(
        lambda frame: frame.select(
            "dynamodb.NewImage.lines.L[2].M.sku.S as sku",
            f"{{'city': {CITY}, 'n': [1, 2]}} as place",
            "len(dynamodb.NewImage.tags.SS) as tags",
            "userIdentity.principalId as who",
        )
    )
    (stage,) = query.stages
    assert "try_element_at(`changes`.`dynamodb`.`_dz_p0`, 2).`M`.`sku`.`S`" in stage
    assert "named_struct('city', `changes`.`dynamodb`.`_dz_p1`, 'n', array(" in stage
    assert query.columns[1] == (
        "CAST(`place` AS STRUCT<`city`: STRING, `n`: ARRAY<INT>>) AS `place`"
    )


def test_a_value_gets_the_fields_that_its_column_has() -> None:
    one = pa.struct([("a", pa.int32())])
    both = pa.struct([("b", pa.string()), ("a", pa.int64())])
    assert converted("s.x", one, both) == (
        "CASE WHEN s.x IS NOT NULL THEN "
        "named_struct('b', CAST(NULL AS STRING), 'a', CAST(s.x.`a` AS BIGINT)) END"
    )
    of_lists = converted("s.x", pa.list_(one), pa.list_(both))
    assert of_lists.startswith(
        "transform(s.x, dz_0 -> CASE WHEN dz_0 IS NOT NULL THEN named_struct"
    )


def test_the_result_of_like_is_a_value() -> None:
    query = translated(lambda frame: frame.select(f"({CITY} not like 'a%') is null as x"))
    assert "NOT LIKE 'a%') IS NULL)" in query.stages[0]


def test_numbers_of_one_wide_type_are_compared() -> None:
    query = translated(
        lambda frame: frame.filter(f"{WIDE} > 0 and {WIDE} < cast(eventID as bigint)").select(
            f"{WIDE} as x"
        )
    )
    assert query.schema.field("x").type == pa.decimal128(38, 18)


def test_milliseconds_that_are_too_large_are_an_error_about_a_value() -> None:
    query = translated(lambda frame: frame.select("epoch_ms(cast(eventID as bigint)) as x"))
    assert "* 1000L)" in query.stages[0]
    assert "timestamp_millis" not in query.stages[0]


def test_a_column_may_have_the_name_of_a_tombstones_cause() -> None:
    query = translated(lambda frame: frame.select(f"{CITY} as cause"))
    statement = batch_query(LogRange("log", 1, 0, 2, ignore_ttl=False), query, ("_dz_key",))
    listed = statement.rpartition("SELECT ")[2]
    names = [
        one.strip("`,").casefold() for one in re.findall(r" AS (`\w+`|\w+)(?:,| FROM)", listed)
    ]
    assert "cause" in names
    assert len(names) == len(set(names))


def test_attribute_names_are_data() -> None:
    query = translated(
        lambda frame: frame.select('dynamodb.NewImage."a`b\'c\\d".S as x', f"{CITY} as y")
    )
    ((_, parsed),) = query.view.parsed
    assert r"`a``b\'c\\d`" in parsed


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        (f"lower({CITY})", "lower: they change other letters"),
        (f"trim({CITY})", "trim: they take other characters"),
        (f"{TOTAL} / 3", "/: they divide"),
        (f"try_cast({CITY} as int)", "try_cast gives null"),
        (f"regexp_extract({CITY}, 'a.')", "function regexp_extract is not supported"),
        (f"{CITY} = 3", "INTEGER and VARCHAR are compared"),
        (f"{CITY} like eventID", "constant text"),
        (f"substring({CITY}, -1)", "constant position"),
        (f"cast(cast({CITY} as time) as varchar)", "TIME is not supported"),
        (f"cast(cast({TOTAL} as decimal(30, 2)) as double)", "which rounds"),
        ("dynamodb.NewImage.lines.L[1].M", "read as JSON text"),
        ("dynamodb.NewImage.lines.L[1]", "read as JSON text"),
        ("dynamodb.NewImage.lines", "read as JSON text"),
        ("dynamodb.NewImage.address.M", "read as JSON text"),
        ("unnest([1, 2])", "unnest is not supported"),
        ("dynamodb", "has the type struct"),
        ("[1, 2][0]", "a constant position from 1"),
        (f"{CITY}[1]", "it takes a list"),
        ("list_contains(dynamodb.NewImage.tags.SS, eventID)", "a constant text"),
        ("list_contains([1, 2], 'a')", "are compared"),
        (f"row({CITY})", "row is not supported"),
        ("[1] = [2]", "are compared"),
        ("cast(dynamodb.NewImage.tags.SS as integer[])", "is not supported"),
        ("cast(cast(dynamodb.NewImage.a.N as decimal(4, 4)) as varchar)", "is cast to VARCHAR"),
        (f"{CITY} as city, city || 'x'", "in a select() before"),
        (f"{WIDE} = cast({TOTAL} as decimal(38, 0))", "over 38 digits"),
        (f"1.5 in ({WIDE}, cast({TOTAL} as decimal(30, 2)))", "over 38 digits"),
        (f"nullif({WIDE}, cast({TOTAL} as decimal(38, 9)))", "over 38 digits"),
        ("cast(eventID as decimal(38, 19)) < cast(eventID as bigint)", "over 38 digits"),
    ],
    ids=str,
)
def test_what_may_differ_is_refused_with_the_call_and_the_reason(
    expression: str, reason: str
) -> None:
    with pytest.raises(DefinitionError) as refused:
        translated(lambda frame: frame.select(f"{expression} as x"))
    text = str(refused.value)
    assert reason in text
    assert "Dataset 'd'" in text
    assert "leave engine out" in text


def test_rows_in_python_are_refused_before_any_is_read() -> None:
    frame = Frame.of_changes(RemoteChunk("orders", 1, 2).unread())
    for read in (frame.arrow, frame.df, frame.pl, frame.items):
        with pytest.raises(DefinitionError, match="orders"):
            read()
