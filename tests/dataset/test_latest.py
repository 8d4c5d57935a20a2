"""The latest change of each key, whatever the order in which changes are read."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.dataset.latest import latest_rows
from datazone_dagster.model.version import row_version

CHANGES = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 3), st.integers(0, 40)))


@given(changes=CHANGES, pieces=st.integers(1, 4))
def test_the_latest_row_has_the_highest_version_and_is_the_last_of_equal_ones(
    changes: list[tuple[str, int, int]], pieces: int
) -> None:
    keys = [key for key, _, _ in changes]
    versions = [row_version(epoch, number) for _, epoch, number in changes]
    expected: dict[str, tuple[str, int]] = {}
    for row, (key, version) in enumerate(zip(keys, versions, strict=True)):
        expected[key] = max(expected.get(key, ("", -1)), (version, row))
    step = max(1, -(-len(changes) // pieces))
    starts = range(0, len(changes), step)
    found = latest_rows(
        pa.chunked_array([keys[start : start + step] for start in starts], pa.string()),
        pa.chunked_array([versions[start : start + step] for start in starts], pa.string()),
    )
    assert found.to_pylist() == sorted(row for _, row in expected.values())


def test_a_key_with_many_changes_has_one_row() -> None:
    numbers = range(100_000)
    versions = pa.array([row_version(1, number) for number in numbers])
    assert latest_rows(pa.repeat("a", len(numbers)), versions).to_pylist() == [99_999]
    backwards = pa.array(reversed(numbers), pa.int64())
    assert latest_rows(pa.repeat("a", len(numbers)), versions.take(backwards)).to_pylist() == [0]
