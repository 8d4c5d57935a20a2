from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.model.record import ChangeRecord, ChangeRecords, Texts

_images = st.none() | st.text(min_size=1, max_size=4).map(str.encode)
_numbers = st.integers(0, 30).map(lambda n: n * 10**20) | st.integers(10**38, 10**40 - 1)
_positions = st.integers(0, 30).map(lambda n: n * 10**54) | st.integers(10**128, 10**129 - 1)


def _pages(position: st.SearchStrategy[int | None]) -> st.SearchStrategy[list[ChangeRecord]]:
    return st.lists(st.builds(_record, _records, position), max_size=6)


def _record(record: ChangeRecord, position: int | None) -> ChangeRecord:
    return record._replace(position=position)


_records = st.builds(
    ChangeRecord,
    event_id=st.text(max_size=4),
    event_name=st.sampled_from(["INSERT", "MODIFY", "REMOVE"]),
    sequence_number=_numbers,
    created_at=st.integers(0, 5),
    keys=st.text(max_size=4).map(str.encode),
    new_image=_images,
    old_image=_images,
    size_bytes=st.integers(0, 9),
    region=st.just("eu-west-1"),
    view_type=st.just("NEW_IMAGE"),
    user_type=st.none() | st.just("Service"),
    user_principal=st.none() | st.just("dynamodb.amazonaws.com"),
    position=st.none(),
)
records = _pages(st.none()) | _pages(_positions)
"""Pages of a DynamoDB stream, and of Kinesis, where each record has a position."""


@given(records)
def test_columns_hold_the_records_as_they_were(some: list[ChangeRecord]) -> None:
    columns = ChangeRecords.of(some)
    assert list(columns) == some
    assert [columns[i] for i in range(len(columns))] == some
    assert columns[1:] == some[1:]
    assert columns.sequence_digits == [f"{r.sequence_number:040d}" for r in some]
    assert columns.image_bytes == sum(
        len(image or b"") for r in some for image in (r.new_image, r.old_image)
    )


def test_texts_are_utf8() -> None:
    with pytest.raises(UnicodeDecodeError):
        Texts.of([b"{}", "é".encode("latin-1")])


@given(
    st.tuples(_pages(st.none()), st.none() | _numbers)
    | st.tuples(_pages(_positions), st.none() | _positions)
)
def test_what_is_newer_is_found_as_one_by_one(
    page: tuple[list[ChangeRecord], int | None],
) -> None:
    some, position = page
    expected, last = [], position
    for record in some:
        number = record.sequence_number if record.position is None else record.position
        if last is None or number > last:
            last = number
            expected.append(record)
    assert ChangeRecords.of(some).newer_than(position) == expected


@given(records, st.none() | st.integers(0, 5))
def test_what_was_made_before_a_time_is_left_out(
    some: list[ChangeRecord], seconds: int | None
) -> None:
    expected = [r for r in some if seconds is None or r.created_at >= seconds]
    assert ChangeRecords.of(some).created_from(seconds) == expected


def test_a_good_page_is_not_copied() -> None:
    columns = ChangeRecords.of(
        ChangeRecord(f"e{n}", "INSERT", 10**21 + n, 1, b"{}", b"{}", None, 1, "r", "v")
        for n in range(3)
    )
    assert columns.newer_than(10**20) is columns
    assert columns.created_from(0) is columns
    assert ChangeRecords.of(columns) is columns
