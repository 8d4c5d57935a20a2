"""Rows that a frame's query fetches while it runs, and the pool of databases that it runs in."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.database.database import Databases
from datazone_dagster.errors import ExpressionError, TransformError
from datazone_dagster.frame import query_session
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.query_session import Coming, MalformedImageError, Unread
from tests.examples import examples
from tests.frame.chunks import chunk

CHANGES = chunk(*(({"id": {"S": str(n)}, "pad": {"S": "x" * 90}}, None) for n in range(3000)))
ID = "dynamodb.NewImage.id.S as id"


def unread(databases: Databases | None = None) -> Frame:
    read = Unread(CHANGES.schema, lambda _images: CHANGES)
    return Frame.of_changes(read, threads=2, databases=databases)


def coming(batches: Iterator[pa.RecordBatch]) -> Coming:
    return Coming(CHANGES.schema, batches, lambda _: True)


def many() -> Iterator[pa.RecordBatch]:
    """Yield enough rows for several batches of a result, and more than a query fetches at first."""
    for _ in range(40):
        yield from CHANGES.to_batches(max_chunksize=700)


@settings(deadline=None, max_examples=examples(20))
@given(sizes=st.lists(st.integers(0, 900), max_size=6))
def test_fetched_rows_give_the_same_result_in_the_same_order_as_a_table(sizes: list[int]) -> None:
    batches, start = [], 0
    for size in sizes:
        batches += CHANGES.slice(start, size).combine_chunks().to_batches()
        start += size
    rows = unread().select("eventID", ID).rows_of(coming(iter(batches)))
    expected = unread().select("eventID", ID).rows_of(CHANGES.slice(0, start))
    assert rows.equals(expected)
    assert rows.schema == expected.schema


def test_a_result_of_several_batches_keeps_its_order() -> None:
    rows = unread().select("eventID").rows_of(coming(many()))
    assert rows["eventID"].to_pylist() == CHANGES["event_id"].to_pylist() * 40


@pytest.mark.parametrize("after", [0, 100])
def test_an_error_while_reading_the_rows_propagates_unchanged(after: int) -> None:
    def failing() -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(many()):
            if number == after:
                raise ConnectionResetError("the store is gone")
            yield batch

    with pytest.raises(ConnectionResetError, match=r"^the store is gone$"):
        unread().select(ID).rows_of(coming(failing()))


@pytest.mark.parametrize("after", [0, 100])
def test_an_error_of_the_query_has_the_same_text_as_over_a_table(after: int) -> None:
    bad = chunk(({"id": {"S": "12x"}}, None))

    def failing() -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(many()):
            if number == after:
                yield from bad.to_batches()
            yield batch

    frame = unread().select("cast(dynamodb.NewImage.id.S as bigint) as id")
    with pytest.raises(ExpressionError) as over_table:
        frame.rows_of(bad)
    with pytest.raises(ExpressionError) as over_batches:
        frame.rows_of(coming(failing()))
    assert over_batches.value.what == over_table.value.what
    assert "12x" in over_batches.value.what


def test_an_image_that_is_not_json_is_distinguished_from_other_errors() -> None:
    at = CHANGES.column_names.index("new_image")
    cut = CHANGES.set_column(at, "new_image", pa.array(['{"cut'] * len(CHANGES)))
    batches = [*many(), *cut.to_batches()]
    with pytest.raises(MalformedImageError):
        unread().select(ID).rows_of(coming(iter(batches)))


def test_no_more_rows_are_fetched_once_the_result_is_enough() -> None:
    fetched: list[int] = []
    reported: list[int] = []

    def counted() -> Iterator[pa.RecordBatch]:
        for batch in chain.from_iterable(many() for _ in range(8)):
            fetched.append(batch.num_rows)
            yield batch

    def wants_more(result_bytes: int) -> bool:
        reported.append(result_bytes)
        return False

    rows = unread().select(ID).rows_of(Coming(CHANGES.schema, counted(), wants_more))
    assert all(reported)
    assert len(rows) <= sum(fetched) < 8 * 40 * len(CHANGES)


def test_databases_are_reused_without_their_earlier_tables() -> None:
    databases = Databases()
    frame = unread(databases)
    first = frame.select(ID).rows_of(coming(iter(CHANGES.to_batches())))
    lookup = pa.table({"id": ["1"]})
    with_lookup = Frame.of_changes(
        Unread(CHANGES.schema, lambda _images: CHANGES),
        lookups={"names": lookup},
        threads=2,
        databases=databases,
    )
    with_lookup.sql("select names.id from changes join names on true")
    opened = databases.take(with_lookup._plan.session._memory_limit_bytes, 2)
    databases.put_back(opened, ())
    del frame, with_lookup
    again = unread(databases)
    with pytest.raises(ExpressionError, match='there is no table "names"'):
        again.sql("select id from names")
    assert again.select(ID).rows_of(coming(iter(CHANGES.to_batches()))).equals(first)


def test_a_database_that_has_read_a_large_chunk_is_not_reused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    databases = Databases()
    frame = unread(databases)
    limit = frame._plan.session._memory_limit_bytes
    used = frame._plan.session._connection
    assert len(frame.select(ID).arrow()) == len(CHANGES)
    with pytest.raises(TransformError):
        frame.select("cast(dynamodb.NewImage.pad.S as integer) as n").arrow()
    del frame
    taken = databases.take(limit, 2)
    assert taken.connection is used
    assert taken.connection.sql("show tables").fetchall() == []
    databases.put_back(taken, ())
    monkeypatch.setattr(query_session, "_RETAINED_BYTES", CHANGES.nbytes - 1)
    frame = unread(databases)
    assert len(frame.select(ID).arrow()) == len(CHANGES)
    del frame
    taken = databases.take(limit, 2)
    assert taken.connection is not used
    databases.put_back(taken, ())
    frame = unread(databases)
    frame._plan.session.table_of("select count(*) from more", "more", CHANGES)
    del frame
    assert databases.take(limit, 2).connection is not taken.connection


def test_items_that_are_only_read_need_no_database_of_their_own() -> None:
    databases = Databases()
    items = unread(databases).items()
    limit = items._plan.session._memory_limit_bytes
    assert items.columns == ["id", "pad"]
    assert items.arrow()["id"].to_pylist() == [str(n) for n in range(len(CHANGES))]
    taken = databases.take(limit, 2)
    assert taken.connection.sql("show tables").fetchall() == []
    databases.put_back(taken, ())
    assert items.filter("id = '7'").arrow().num_rows == 1
    assert items._plan.session._connection is taken.connection
