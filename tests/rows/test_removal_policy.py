"""When `deletion_vectors="auto"` gives a table vectors: by the bytes of a whole backlog."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.rows.removal_policy import (
    BACKLOG_REWRITE_BYTES,
    REWRITE_BYTES,
    TouchedFile,
    hides_rows,
    merges_left,
    rewritten_bytes,
)

BYTES = st.integers(0, 10**9)
MERGES = st.floats(0, 1000)


def test_the_limits() -> None:
    assert (REWRITE_BYTES, BACKLOG_REWRITE_BYTES) == (32_000_000, 256_000_000)


@given(one=BYTES, other=BYTES, left=MERGES, more=MERGES)
def test_more_to_rewrite_never_speaks_against_vectors(
    one: int, other: int, left: float, more: float
) -> None:
    small, large = sorted((one, other))
    assert hides_rows(small, left) <= hides_rows(large, left)
    assert hides_rows(one, left) <= hides_rows(one, left + more)


@given(rewritten=BYTES)
def test_without_a_backlog_the_merge_alone_decides(rewritten: int) -> None:
    assert hides_rows(rewritten, 0.0) is (rewritten >= REWRITE_BYTES)


@given(
    changes=st.integers(1, 60),
    merges=st.integers(1, 60),
    sizes=st.lists(st.integers(0, REWRITE_BYTES - 1), min_size=60, max_size=60),
)
def test_a_backlog_rewrites_little_more_than_the_limit_before_it_stops(
    changes: int, merges: int, sizes: list[int]
) -> None:
    """However the table grows meanwhile: the n-th merge from the end decides for n of them."""
    rewritten = 0
    for done in range(1, merges + 1):
        left = merges_left(changes * (merges - done), changes)
        assert left == merges - done
        if hides_rows(sizes[done - 1], left):
            break
        rewritten += sizes[done - 1]
    assert rewritten <= BACKLOG_REWRITE_BYTES * (1 + math.log(merges))


def test_a_small_table_gets_vectors_in_a_long_backlog_only() -> None:
    ten_mb = 10_000_000
    assert not hides_rows(ten_mb, merges_left(2 * 30_000, 30_000))
    assert hides_rows(ten_mb, merges_left(29 * 30_000, 30_000))


def test_only_rows_that_stay_are_rewritten() -> None:
    replaced = TouchedFile(size_bytes=100_000_000, rows=1000, rows_left=30)
    scattered = TouchedFile(size_bytes=100_000_000, rows=1000, rows_left=900)
    assert rewritten_bytes([replaced]) == 3_000_000
    assert rewritten_bytes([replaced, scattered]) == 93_000_000


@pytest.mark.parametrize("changes", [0, -1])
def test_a_chunk_without_changes_says_nothing_of_the_backlog(changes: int) -> None:
    assert merges_left(100, changes) == 0.0
