"""Row-wise frames: their detection, and that subsets of a chunk give subsets of its rows."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.errors import ExpressionError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.query_session import Unread
from datazone_dagster.model.column_names import Log
from tests.examples import examples
from tests.frame.chunks import chunk

CHANGES = chunk(
    ({"id": {"S": "1"}, "n": {"N": "1"}, "l": {"L": [{"S": "a"}, {"S": "b"}]}}, None),
    ({"id": {"S": "2"}, "n": {"N": "2"}}, {"id": {"S": "2"}, "n": {"N": "1"}}),
    (None, {"id": {"S": "1"}, "n": {"N": "1"}}),
    ({"id": {"S": "3"}, "l": {"L": []}}, None),
)
N = "dynamodb.NewImage.n.N"
Use = Callable[[Frame], Frame]


def unread(changes: pa.Table = CHANGES) -> Frame:
    def read(_images: frozenset[str]) -> pa.Table:
        raise AssertionError("the chunk was read")

    return Frame.of_changes(Unread(changes.schema, read), threads=1)


ROW_WISE: list[Use] = [
    lambda f: f.select("eventID", f"{N} as n", f"cast({N} as decimal(18, 2)) as d"),
    lambda f: f.filter(f"{N} is not null and eventName <> 'REMOVE'"),
    lambda f: f.select("eventID as e").with_columns("upper(e) as u", "e || '!' as x"),
    lambda f: f.select(f"case when {N} > '1' then 'a' else nullif({N}, '2') end as c"),
    lambda f: f.select("list_transform(dynamodb.NewImage.l.L, lambda x: x->>'$.S') as l"),
    lambda f: f.select("unnest(dynamodb.NewImage.l.L) as element"),
    lambda f: f.select("*"),
    lambda f: f.sql(f"select eventID, {N} as n from changes where {N} = '1'"),
    lambda f: f.select(
        "dynamodb.OldImage.n.N as n", "split_part(eventID, 'e', 2) as p", "repeat(eventID, 2) as r"
    ),
]
NOT_ROW_WISE: list[Use] = [
    lambda f: f.select("row_number() over (order by eventID) as n"),
    lambda f: f.with_columns("count(*) over (partition by eventName) as n"),
    lambda f: f.select("(select 1) as n"),
    lambda f: f.filter("exists (select 1)"),
    lambda f: f.select("current_date as today"),
    lambda f: f.select("now() as n"),
    lambda f: f.select("random() as r"),
    lambda f: f.sql("select eventID from changes order by 1 limit 1"),
    lambda f: f.sql("select distinct on (eventName) eventID from changes"),
    lambda f: f.sql("select eventID from changes qualify row_number() over () = 1"),
    lambda f: f.sql("select eventID from changes using sample 1"),
    lambda f: f.sql("select eventID from changes union all select eventName from changes"),
    lambda f: f.sql("select a.eventID from changes a join changes b on a.eventName = b.eventName"),
    lambda f: f.sql("with c as (select * from changes) select eventID from c"),
    lambda f: f.sql("select arg_max(eventID, _dz_version) as e from changes group by eventName"),
    lambda f: f.select("row_number() over () as n").filter("n > 0").select("n + 1 as m"),
]


@pytest.mark.parametrize("use", ROW_WISE)
def test_expressions_over_one_row_are_row_wise_and_read_nothing(use: Use) -> None:
    assert use(unread()).is_row_wise


@pytest.mark.parametrize("use", NOT_ROW_WISE)
def test_expressions_over_other_rows_or_the_current_time_are_not_row_wise(use: Use) -> None:
    assert not use(unread()).is_row_wise


def test_a_frame_that_was_read_and_the_view_of_items_are_not_row_wise() -> None:
    frame = Frame.of_changes(Unread(CHANGES.schema, lambda _: CHANGES), threads=1)
    selected = frame.select("eventID")
    assert frame.arrow().num_rows == len(CHANGES)
    assert not selected.is_row_wise
    assert not frame.filter("true").is_row_wise

    frame = Frame.of_changes(Unread(CHANGES.schema, lambda _: CHANGES), threads=1)
    items = frame.items()
    assert not items.is_row_wise
    assert items.arrow().num_rows == len(CHANGES)


def test_the_full_chunk_is_read_once_if_the_function_reads_a_frame() -> None:
    reads = []

    def read(_images: frozenset[str]) -> pa.Table:
        reads.append(1)
        return CHANGES

    frame = Frame.of_changes(Unread(CHANGES.schema, read), threads=1)
    count = frame.sql("select count(*) as n from changes").arrow()
    assert count.column("n").to_pylist() == [len(CHANGES)]
    frame.select("eventID").arrow()
    assert len(reads) == 1


@pytest.mark.parametrize(
    ("use", "images"),
    [
        (lambda f: f.select("eventID", "awsRegion", "userIdentity.type as t"), set()),
        (lambda f: f.select("dynamodb.SequenceNumber", "dynamodb.SizeBytes"), set()),
        (lambda f: f.select(N), {Log.NEW_IMAGE}),
        (lambda f: f.filter("dynamodb.OldImage.n.N = '1'").select(N),
         {Log.NEW_IMAGE, Log.OLD_IMAGE}),
        (lambda f: f.select("dynamodb.Keys.id.S"), {Log.KEYS}),
        (lambda f: f.select("dynamodb.NewImage"), {Log.NEW_IMAGE}),
        (lambda f: f.select("*"), {Log.KEYS, Log.NEW_IMAGE, Log.OLD_IMAGE}),
    ],
)  # fmt: skip
def test_only_images_that_are_named_are_needed(use: Use, images: set[str]) -> None:
    frame = use(unread())
    assert frame.images_needed == images
    others = {Log.KEYS, Log.NEW_IMAGE, Log.OLD_IMAGE} - images
    without = CHANGES
    for name in others:
        nothing = pa.nulls(len(CHANGES), pa.string())
        without = without.set_column(without.column_names.index(name), name, nothing)
    assert frame.rows_of(without) == use(Frame.of_changes(CHANGES, threads=1)).arrow()


@settings(deadline=None, max_examples=examples(30))
@given(
    use=st.sampled_from(ROW_WISE),
    subsets=st.lists(st.lists(st.sampled_from(range(len(CHANGES))), unique=True), max_size=4),
)
def test_any_subset_of_a_chunk_gives_its_share_of_the_rows(
    use: Use, subsets: list[list[int]]
) -> None:
    frame = use(unread())
    full = use(Frame.of_changes(CHANGES, threads=1)).arrow()
    versions = CHANGES["_dz_version"].to_pylist()
    for subset in subsets:
        rows = frame.rows_of(CHANGES.take(pa.array(subset, pa.int64())))
        wanted = {versions[row] for row in subset}
        share = [row for row in full.to_pylist() if row["_dz_version"] in wanted]
        assert sorted(rows.to_pylist(), key=repr) == sorted(share, key=repr)
        assert rows.schema == full.schema


def test_an_error_over_given_changes_has_the_same_text_as_over_the_chunk() -> None:
    failing = "cast(dynamodb.NewImage.id.S as date) as d"
    with pytest.raises(ExpressionError) as over_chunk:
        Frame.of_changes(CHANGES, threads=1).select(failing).arrow()
    with pytest.raises(ExpressionError) as over_given:
        unread().select(failing).rows_of(CHANGES)
    assert str(over_given.value) == str(over_chunk.value)
