"""`@transform(row_wise=True)`: functions that read their rows get the latest changes only."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.apply.chunk_size import ApplySettings
from datazone_dagster.apply.first_changes import MOST_ROW_GROUPS, MOST_ROWS
from datazone_dagster.apply.row_wise_check import CHECKED_CHANGES
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.errors import DefinitionError, ResultError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import ApplyReport
from datazone_dagster.pipeline import apply_transform
from tests.apply.test_latest_parts import BATCH, CHANGES, SOURCE, Item, contents, land, record
from tests.examples import examples

ALL = ApplySettings(chunk_bytes=10**6)


def flow_of(
    function: Any, *, row_wise: bool = True, name: str = "rows", **dataset: Any
) -> Transform:
    return transform(
        name=name,
        input_mapping={"orders": Input(Stream(source=SOURCE))},
        output_mapping={name: Output(Dataset(id=name, **dataset))},
        row_wise=row_wise,
    )(function)


def applied(
    layout: Layout, function: Any, bounds: ApplySettings = ALL, **options: Any
) -> ApplyReport:
    (report,) = apply_transform(flow_of(function, **options), layout, settings=bounds).values()
    return report


def statuses(orders: Frame) -> pa.Table:
    """Python code over the rows: the deleted and the hidden ones are left out."""
    rows = orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.status.S as status").arrow()
    rows = rows.filter(pc.is_valid(rows["status"]))
    rows = rows.filter(pc.not_equal(rows["status"], "hidden"))
    return rows.append_column("shouted", pc.utf8_upper(rows["status"]))


MANY: list[tuple[str, Item | None]] = [
    *((key, {"status": {"S": f"{key}{at}"}}) for at in range(20) for key in "abc"),
    ("c", None),
]


def test_it_gets_the_latest_change_of_each_key(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [MANY, MANY])
    given_: list[list[str]] = []

    def watched(orders: Frame) -> pa.Table:
        given_.append([str(key) for key in orders.select("dynamodb.Keys.id.S as id").arrow()["id"]])
        return statuses(orders)

    report = applied(layout, watched)
    assert (report.records, report.row_count, report.chunks) == (2 * len(MANY), 2, 1)
    assert [row["status"] for row in contents(layout, "rows")] == ["a19", "b19"]
    assert all(len(keys) == len(set(keys)) for keys in given_)
    assert len(given_[-1]) == 3
    land(layout, [[("c", {"status": {"S": "again"}}), ("a", None)]])
    assert applied(layout, watched).row_count == 2
    assert {row["status"] for row in contents(layout, "rows")} == {"again", "b19"}


@settings(max_examples=examples(8), deadline=None)
@given(
    batches=st.lists(st.lists(CHANGES, min_size=1, max_size=6), min_size=1, max_size=4),
    bounds=st.sampled_from([BATCH, ALL]),
)
def test_datasets_are_as_from_every_change(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[tuple[str, Item | None]]],
    bounds: ApplySettings,
) -> None:
    layout = Layout(str(tmp_path_factory.mktemp("lake")))
    land(layout, batches)
    one = applied(layout, statuses, bounds, name="latest")
    other = applied(layout, statuses, bounds, name="every", row_wise=False)
    assert contents(layout, "latest") == contents(layout, "every")
    assert (one.position, one.records) == (other.position, other.records)


def counted(orders: Frame) -> pa.Table:
    rows = statuses(orders)
    return rows.append_column("together", pa.array([len(rows)] * len(rows)))


def only_first(orders: Frame) -> pa.Table:
    return statuses(orders).slice(0, 1)


def needs_three(orders: Frame) -> pa.Table:
    rows = statuses(orders)
    if len(rows) < 3:
        raise ValueError("too few")
    return rows


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (counted, "of the first one: the columns 'together' differ"),
        (only_first, "0 at once, 1 in halves"),
        (needs_three, "it fails on some of them: "),
    ],
)
def test_a_function_that_is_not_row_wise_stops_before_anything_is_written(
    tmp_path: Path, function: Callable[[Frame], pa.Table], says: str
) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [[(key, {"status": {"S": "x"}}) for key in "abcd"]])
    with pytest.raises(ResultError) as caught:
        applied(layout, function)
    assert "Transform 'rows' has row_wise=True" in caught.value.what
    assert says in caught.value.what
    assert "leave out row_wise=True" in str(caught.value.hint)
    assert not Path(layout.dataset("rows")).exists()
    if function is not needs_three:
        assert "c" in caught.value.what, "a key whose row differs"
    assert applied(layout, function, row_wise=False).position == 1, "the way out"


def test_values_of_the_call_itself_are_no_difference(tmp_path: Path) -> None:
    layout, calls = Layout(str(tmp_path)), itertools.count()
    land(layout, [MANY])

    def stamped(orders: Frame) -> pa.Table:
        rows = statuses(orders)
        return rows.append_column("call", pa.array([next(calls)] * len(rows), pa.int64()))

    assert applied(layout, stamped).row_count == 2


def test_rows_in_another_order_at_each_call_hide_no_difference(tmp_path: Path) -> None:
    """As those of a Polars `group_by`, or of SQL with a join."""
    layout = Layout(str(tmp_path))
    land(layout, [[(key, {"status": {"S": key * 3}}) for key in "abcdefgh"]])
    calls = itertools.count()

    def turned(rows: pa.Table) -> pa.Table:
        at = next(calls) % len(rows)
        return pa.concat_tables([rows.slice(at), rows.slice(0, at)])

    def ranked(orders: Frame) -> pa.Table:
        rows = statuses(orders)
        return turned(rows.append_column("rank", pc.rank(rows["id"])))

    with pytest.raises(ResultError, match="the columns 'rank' differ"):
        applied(layout, ranked)
    assert applied(layout, lambda orders: turned(statuses(orders))).row_count == 8


def test_columns_and_types_that_follow_from_the_values_are_no_difference(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [[(key, {"total": {"N": key}}) for key in ("1", "2.5", "3", "4")]])

    def inferred(orders: Frame) -> pa.Table:
        rows = orders.select("dynamodb.NewImage.total.N as total").arrow()
        numbers = [float(text) if "." in text else int(text) for text in rows["total"].to_pylist()]
        rows = rows.append_column("number", pa.array(numbers, from_pandas=True))
        only_some = [text if "." in text else None for text in rows["total"].to_pylist()]
        return rows.append_column("fraction", pa.array(only_some))

    assert applied(layout, inferred).row_count == 4


ONE: list[tuple[str, Item | None]] = [("a", {"status": {"S": "x"}})]
TEN: list[tuple[str, Item | None]] = [(f"k{at}", {"status": {"S": "x"}}) for at in range(10)]
DELETES: list[tuple[str, Item | None]] = [(f"d{at}", None) for at in range(CHECKED_CHANGES)]


@pytest.mark.parametrize(("function", "bounds"), [(counted, BATCH), (only_first, ALL)])
@pytest.mark.parametrize(
    "batches",
    [
        [ONE, TEN],
        [ONE * (MOST_ROWS + 76) + TEN],
        [ONE] * (MOST_ROW_GROUPS + 1) + [TEN],
        [DELETES, TEN],
        [[*DELETES, *DELETES, *TEN]],
    ],
    ids=["one first", "hot key first", "hot key in many batches", "deletes first", "deletes"],
)
def test_first_changes_that_show_nothing_do_not_settle_it(
    tmp_path: Path,
    function: Callable[[Frame], pa.Table],
    bounds: ApplySettings,
    batches: list[list[tuple[str, Item | None]]],
) -> None:
    layout = Layout(str(tmp_path))
    land(layout, batches)
    with pytest.raises(ResultError, match="row_wise=True"):
        applied(layout, function, bounds)
    if Path(layout.dataset("rows")).exists():
        assert len(contents(layout, "rows")) <= 1, "nothing of several changes was written"


def test_a_row_wise_function_is_called_no_more_once_that_is_shown(tmp_path: Path) -> None:
    layout, sizes = Layout(str(tmp_path)), list[int]()
    land(layout, [DELETES, TEN, TEN, TEN])

    def watched(orders: Frame) -> pa.Table:
        rows = statuses(orders)
        sizes.append(orders.select("1 as one").arrow().num_rows)
        return rows

    assert applied(layout, watched, BATCH).row_count == len(TEN)
    of_ten = [size for size in sizes if size <= len(TEN)]
    assert sorted(of_ten) == [5, 5, 10, 10, 10, 10], "the check calls it thrice, once"


def test_a_function_that_now_and_then_reads_the_old_image_gets_it(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [[(key, {"status": {"S": "x"}}) for key in "ab"]])
    land(layout, [[("a", {"status": {"S": "look"}}), ("b", {"status": {"S": "y"}})]] * 2)

    def curious(orders: Frame) -> pa.Table:
        rows = statuses(orders)
        if "look" not in rows["status"].to_pylist():
            return rows.append_column("before", pa.nulls(len(rows), pa.string()))
        both = orders.select(
            "dynamodb.NewImage.status.S as status", "dynamodb.OldImage.status.S as old"
        ).arrow()
        before = pc.if_else(pc.equal(both["status"], "look"), both["old"], None)
        return rows.append_column("before", before)

    applied(layout, curious, BATCH)
    found = {row["id"]: row.get("before") for row in contents(layout, "rows")}
    assert found == {"a": "old", "b": None}


def test_a_bad_image_among_the_first_changes_goes_to_the_quarantine(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    bad = record(1, "z", {})._replace(new_image=b'{"cut')
    ChangeLog(layout, "orders").open_or_create().append(1, [ShardRecords("arn", "s", None, [bad])])
    land(layout, [MANY])
    report = applied(layout, lambda orders: orders.items().arrow())
    assert (report.quarantined, report.row_count) == (1, 2)


def test_sql_that_does_not_show_it_gets_the_latest_changes(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [MANY])
    seen: list[int] = []

    def listed(orders: Frame) -> Frame:
        found = orders.items().sql(
            "select * from changes where status in (select 'a19' union all select 'b19')"
        )
        seen.append(orders.select("1 as one").arrow().num_rows)
        return found

    assert applied(layout, listed).row_count == 2
    assert set(seen) <= {1, 2, 3}


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        ({"mode": "append"}, "mode='append'"),
        ({"mode": "history"}, "mode='history'"),
        ({"deletes": "soft"}, "deletes='soft'"),
        ({"ttl_deletes": "ignore"}, "ttl_deletes='ignore'"),
    ],
)
def test_it_is_refused_where_every_change_counts(dataset: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=f"dataset 'rows' has {says}, where every change"):
        flow_of(statuses, **dataset)
    assert flow_of(statuses, row_wise=False, **dataset).row_wise is False


def test_it_is_true_or_false() -> None:
    with pytest.raises(DefinitionError, match="row_wise='yes' is not a bool"):
        flow_of(statuses, row_wise="yes")  # type: ignore[arg-type]  # that is the point
