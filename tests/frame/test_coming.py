"""Rows that a frame's query asks for while it runs, and the databases of a run that it runs in."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.errors import ExpressionError
from datazone_dagster.frame.database import Databases
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.query_session import Coming, MalformedImageError, Unread
from tests.frame.chunks import chunk

CHANGES = chunk(*(({"id": {"S": str(n)}, "pad": {"S": "x" * 90}}, None) for n in range(3000)))
ID = "dynamodb.NewImage.id.S as id"


def unread(databases: Databases | None = None) -> Frame:
    read = Unread(CHANGES.schema, lambda _images: CHANGES)
    return Frame.of_changes(read, threads=2, databases=databases)


def coming(batches: Iterator[pa.RecordBatch]) -> Coming:
    return Coming(CHANGES.schema, batches, lambda _: True)


def many() -> Iterator[pa.RecordBatch]:
    """As many rows as several parts of a result hold, and more than a query begins with."""
    for _ in range(40):
        yield from CHANGES.to_batches(max_chunksize=700)


@settings(deadline=None, max_examples=20)
@given(sizes=st.lists(st.integers(0, 900), max_size=6))
def test_rows_that_come_give_what_the_same_rows_give_in_their_order(sizes: list[int]) -> None:
    batches, start = [], 0
    for size in sizes:
        batches += CHANGES.slice(start, size).combine_chunks().to_batches()
        start += size
    rows = unread().select("eventID", ID).rows_of(coming(iter(batches)))
    whole = unread().select("eventID", ID).rows_of(CHANGES.slice(0, start))
    assert rows.equals(whole)
    assert rows.schema == whole.schema


def test_what_is_more_than_a_part_of_the_result_comes_in_its_order() -> None:
    rows = unread().select("eventID").rows_of(coming(many()))
    assert rows["eventID"].to_pylist() == CHANGES["event_id"].to_pylist() * 40


@pytest.mark.parametrize("after", [0, 100])
def test_an_error_of_those_who_read_comes_as_it_is(after: int) -> None:
    def failing() -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(many()):
            if number == after:
                raise ConnectionResetError("the store is away")
            yield batch

    with pytest.raises(ConnectionResetError, match=r"^the store is away$"):
        unread().select(ID).rows_of(coming(failing()))


@pytest.mark.parametrize("after", [0, 100])
def test_an_error_of_the_query_reads_as_it_does_over_a_table(after: int) -> None:
    bad = chunk(({"id": {"S": "12x"}}, None))

    def failing() -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(many()):
            if number == after:
                yield from bad.to_batches()
            yield batch

    frame = unread().select("cast(dynamodb.NewImage.id.S as bigint) as id")
    with pytest.raises(ExpressionError) as whole:
        frame.rows_of(bad)
    with pytest.raises(ExpressionError) as part:
        frame.rows_of(coming(failing()))
    assert part.value.what == whole.value.what
    assert "12x" in part.value.what


def test_an_image_that_is_not_json_is_told_from_other_errors() -> None:
    at = CHANGES.column_names.index("new_image")
    cut = CHANGES.set_column(at, "new_image", pa.array(['{"cut'] * len(CHANGES)))
    batches = [*many(), *cut.to_batches()]
    with pytest.raises(MalformedImageError):
        unread().select(ID).rows_of(coming(iter(batches)))


def test_no_more_rows_are_asked_for_once_it_is_enough() -> None:
    given: list[int] = []
    told: list[int] = []

    def counted() -> Iterator[pa.RecordBatch]:
        for batch in many():
            given.append(batch.num_rows)
            yield batch

    def goes_on(more_bytes: int) -> bool:
        told.append(more_bytes)
        return False

    rows = unread().select(ID).rows_of(Coming(CHANGES.schema, counted(), goes_on))
    assert all(told)
    assert len(rows) <= sum(given) < 40 * len(CHANGES)


def test_databases_are_used_again_without_the_tables_of_before() -> None:
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
    databases.release_memory(opened, ())
    del frame, with_lookup
    again = unread(databases)
    with pytest.raises(ExpressionError, match='there is no table "names"'):
        again.sql("select id from names")
    assert again.select(ID).rows_of(coming(iter(CHANGES.to_batches()))).equals(first)


def test_a_database_that_has_read_a_chunk_is_not_used_again() -> None:
    databases = Databases()
    frame = unread(databases)
    limit = frame._plan.session._memory_limit_bytes
    used = frame._plan.session._connection
    assert len(frame.select(ID).arrow()) == len(CHANGES)
    del frame
    assert databases.take(limit, 2).connection is not used
    other = unread(databases)
    used = other._plan.session._connection
    del other
    assert databases.take(limit, 2).connection is used
