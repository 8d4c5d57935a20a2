"""Return values of a user function, and the rows that they become."""

from __future__ import annotations

import decimal
import subprocess
import sys
from datetime import date, datetime, time, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import polars as pl
import pyarrow as pa
import pytest

from datazone_dagster.errors import HiddenColumnsError, ResultError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.result import rows_of, split_outputs
from datazone_dagster.model.column_names import HIDDEN
from tests.frame.chunks import EVENT_TIME_OF_ALL, chunk

ITEM = {"id": {"S": "1"}, "n": {"N": "5"}}


def frame() -> Frame:
    return Frame.of_changes(chunk((ITEM, None), (None, ITEM))).select(
        "dynamodb.NewImage.n.N::int as n"
    )


def rows(returned: object) -> pa.Table:
    return rows_of(returned, dataset_id="orders", mode="merge")


def with_column(values: Any, kind: pa.DataType | None = None, name: str = "x") -> pa.Table:
    column = values if isinstance(values, pa.Array) else pa.array(values, kind)
    return frame().arrow().slice(0, len(column)).append_column(name, column)


def test_every_kind_of_result_gives_the_same_rows() -> None:
    expected = rows(frame())
    assert expected.schema == pa.schema(
        [
            ("n", pa.int32()),
            ("_dz_key", pa.string()),
            ("_dz_version", pa.string()),
            ("_dz_event_time", pa.timestamp("us", tz="UTC")),
        ]
    )
    table = frame().arrow()
    connection = duckdb.connect()
    connection.execute("set TimeZone = 'Asia/Tokyo'")
    connection.register("t", table)
    results: list[object] = [
        table,
        table.to_batches()[0],
        table.to_reader(),
        connection.sql("select * from t"),
        pl.from_arrow(table),
        frame().pl().lazy(),
        frame().df(),
        pl.DataFrame(table).to_arrow(),
    ]
    for result in results:
        assert rows(result).equals(expected), type(result)


def test_plain_pandas_frames_are_accepted() -> None:
    frame_of_pandas = frame().arrow().to_pandas()
    assert rows(frame_of_pandas).column("_dz_event_time").to_pylist() == [EVENT_TIME_OF_ALL] * 2


def test_hidden_columns_go_last() -> None:
    table = frame().arrow().select(["_dz_key", "n", "_dz_event_time", "_dz_version"])
    assert rows(table).column_names == ["n", *HIDDEN]


@pytest.mark.parametrize(
    ("returned", "hint"),
    [
        (lambda: frame().sql("select count(*) as n from changes"), "arg_max(_dz_key"),
        (lambda: frame().arrow().select(["n"]), "frame.arrow()"),
        (lambda: frame().pl().select("n"), ".select(..."),
        (lambda: frame().pl().lazy().select("n"), ".select(..."),
        (lambda: frame().df()[["n"]], "df[["),
        (lambda: duckdb.sql("select 1 as n"), "relation's columns"),
    ],
)
def test_lost_hidden_columns_say_how_to_keep_them(returned: Any, hint: str) -> None:
    with pytest.raises(HiddenColumnsError) as caught:
        rows(returned())
    assert hint in caught.value.hint
    assert "_dz_key, _dz_version, _dz_event_time" in caught.value.what
    assert "'orders'" in caught.value.what


@pytest.mark.parametrize("name", HIDDEN)
def test_null_or_changed_hidden_columns_are_refused(name: str) -> None:
    table = frame().arrow()
    position = table.column_names.index(name)
    for kind in (table.schema.field(name).type, pa.null()):
        with pytest.raises(HiddenColumnsError, match="null"):
            rows(table.set_column(position, name, pa.nulls(2, kind)))
    with pytest.raises(HiddenColumnsError, match="int64, not"):
        rows(table.set_column(position, name, pa.array([1, 2])))


def test_versions_must_be_versions() -> None:
    table = frame().arrow()
    position = table.column_names.index("_dz_version")
    with pytest.raises(HiddenColumnsError, match="not versions"):
        rows(table.set_column(position, "_dz_version", pa.array(["1", "2"])))


@pytest.mark.parametrize(
    "returned", [None, 5, "rows", [1], {"a": 1}, object(), pl.Series([1]), pa.array([1])]
)
def test_values_that_are_not_rows_are_refused(returned: object) -> None:
    with pytest.raises(ResultError, match="orders"):
        rows(returned)


@pytest.mark.parametrize(
    ("returned", "said", "from_dicts"),
    [
        ([{"a": 1}], "a list of dict,", True),
        ([{"a": 1}, {"a": 2}], "a list of dict,", True),
        (({"a": 1},), "a tuple of dict,", True),
        ({"orders": [{"a": 1}]}, "a list of dict,", True),
        ([(1, 2)], "a list of tuple,", False),
        ([1, "x", 2], "a list of int and str,", False),
        ([None], "a list of NoneType,", False),
        ([], "a list,", False),
    ],
)
def test_python_rows_are_named_as_they_were_returned(
    returned: object, said: str, from_dicts: bool
) -> None:
    with pytest.raises(ResultError) as caught:
        rows(split_outputs(returned, [("orders",)])[0])
    assert said in caught.value.what
    assert ("from_pylist" in caught.value.hint) == from_dicts


def test_python_rows_are_accepted_in_the_form_that_the_error_shows() -> None:
    dicts = [{**row, "n": row["n"] or 0} for row in frame().arrow().to_pylist()]
    assert rows(pa.Table.from_pylist(dicts)).column("n").to_pylist() == [5, 0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("n", "two columns"), ("N", "'n' and 'N'"), ("_dz_deleted", "reserved"), ("", "no name")],
)
def test_unusable_names_are_refused(name: str, reason: str) -> None:
    with pytest.raises(ResultError, match=reason):
        rows(with_column([1, 2], name=name))


UTC = timezone.utc
NOON = datetime(2024, 1, 1, 12, 0, 0, 123456)


@pytest.mark.parametrize(
    ("column", "kind", "values"),
    [
        (pa.array(["a"], pa.large_string()), pa.string(), ["a"]),
        (pa.array(["a"], pa.string_view()), pa.string(), ["a"]),
        (pa.array([b"a"], pa.large_binary()), pa.binary(), [b"a"]),
        (pa.array([b"ab"], pa.binary(2)), pa.binary(), [b"ab"]),
        (pa.array(["a"]).dictionary_encode(), pa.string(), ["a"]),
        (pa.array(["a"], pa.large_string()).dictionary_encode(), pa.string(), ["a"]),
        (
            pa.DictionaryArray.from_arrays([0, None], pa.array(["a"], pa.string_view())),
            pa.string(),
            ["a", None],
        ),
        (pa.array([255], pa.uint8()), pa.int16(), [255]),
        (pa.array([65535], pa.uint16()), pa.int32(), [65535]),
        (pa.array([2**32 - 1], pa.uint32()), pa.int64(), [2**32 - 1]),
        (pa.array([2**64 - 1], pa.uint64()), pa.decimal128(20, 0), [decimal.Decimal(2**64 - 1)]),
        (pa.array([date(2024, 1, 1)], pa.date64()), pa.date32(), [date(2024, 1, 1)]),
        (
            pa.array([NOON], pa.timestamp("ns")),
            pa.timestamp("us", tz="UTC"),
            [NOON.replace(tzinfo=UTC)],
        ),
        (
            pa.array([[NOON]], pa.list_(pa.timestamp("us"))),
            pa.list_(pa.timestamp("us", tz="UTC")),
            [[NOON.replace(tzinfo=UTC)]],
        ),
        (
            pa.array([NOON.replace(tzinfo=UTC)], pa.timestamp("us", tz="Asia/Tokyo")),
            pa.timestamp("us", tz="UTC"),
            [NOON.replace(tzinfo=UTC)],
        ),
        (
            pa.array([decimal.Decimal("1.5")], pa.decimal256(50, 2)),
            pa.decimal128(38, 2),
            [decimal.Decimal("1.50")],
        ),
        (pa.array([["a"]], pa.large_list(pa.large_string())), pa.list_(pa.string()), [["a"]]),
        (
            pa.array([{"a": 1}], pa.struct([("a", pa.uint8())])),
            pa.struct([("a", pa.int16())]),
            [{"a": 1}],
        ),
        (
            pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
            pa.map_(pa.string(), pa.int64()),
            [[("k", 1)]],
        ),
        (pa.array([True]), pa.bool_(), [True]),
        (pa.array([1.5]), pa.float64(), [1.5]),
    ],
)
def test_types_become_those_of_delta(column: pa.Array, kind: pa.DataType, values: Any) -> None:
    written = rows(with_column(column)).column("x")
    assert written.type == kind
    assert written.to_pylist() == values


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([time(1)], pa.time64("us")), "time64"),
        (pa.array([timedelta(1)]), "duration"),
        (pa.array([[]], pa.list_(pa.null())), "the type of its values is unknown"),
        (pa.array([NOON.replace(tzinfo=UTC)], pa.timestamp("s", tz="UTC")).cast(
            pa.timestamp("ns", tz="UTC")).cast(pa.int64()).view(pa.timestamp("ns")), None),
        (pa.array([1], pa.int64()).view(pa.timestamp("ns")), "holds a value"),
        (pa.array([decimal.Decimal("1e45")], pa.decimal256(50, 2)), "holds a value"),
    ],
)  # fmt: skip
def test_types_without_a_counterpart_are_refused(column: pa.Array, reason: str | None) -> None:
    if reason is None:
        assert rows(with_column(column)).column("x").type == pa.timestamp("us", "UTC")
        return
    with pytest.raises(ResultError, match="'x'") as caught:
        rows(with_column(column))
    assert reason in str(caught.value)


def test_a_column_of_the_null_type_is_left_out() -> None:
    assert "x" not in rows(with_column([None, None])).column_names


def test_local_times_keep_their_instant() -> None:
    zone = ZoneInfo("America/New_York")
    column = pl.Series("x", [datetime(2024, 1, 1, 12, tzinfo=zone)] * 2)
    written = rows(frame().pl().with_columns(column)).column("x")
    assert written.to_pylist() == [datetime(2024, 1, 1, 17, tzinfo=UTC)] * 2


def test_a_failing_relation_is_a_clear_error() -> None:
    with pytest.raises(ResultError, match="can't be read as rows: Conversion"):
        rows(duckdb.sql("select cast(x as int) from (values ('a'), ('1')) t(x)"))


def test_the_package_imports_no_data_frame_library() -> None:
    code = (
        "import sys\n"
        "import datazone_dagster.frame.frame, datazone_dagster.frame.result\n"
        "assert not {'polars', 'pandas', 'dagster', 'deltalake', 'boto3'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


OUTPUTS = [("orders", "orders_ds"), ("lines",)]


def test_outputs_by_name_and_by_order() -> None:
    a, b = object(), object()
    assert split_outputs({"lines": b, "orders_ds": a}, OUTPUTS) == [a, b]
    assert split_outputs((a, b), OUTPUTS) == [a, b]
    assert split_outputs(a, OUTPUTS[:1]) == [a]
    assert split_outputs((a,), OUTPUTS[:1]) == [a]
    assert split_outputs({"orders": a}, OUTPUTS[:1]) == [a]


@pytest.mark.parametrize(
    "returned",
    [{"orders": 1}, {"orders": 1, "x": 2}, {"orders": 1, "orders_ds": 1, "lines": 2}, (1,),
     (1, 2, 3), 5, None],
)  # fmt: skip
def test_outputs_that_do_not_match_are_named(returned: object) -> None:
    with pytest.raises(ResultError, match="'orders', 'lines'"):
        split_outputs(returned, OUTPUTS)
