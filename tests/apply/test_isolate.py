from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.apply.isolate import (
    NotIsolatedError,
    TooManyFailingError,
    failing_rows,
    first_failing_row,
)
from datazone_dagster.model.quarantine_policy import HOPELESS_AFTER


class Function:
    """Fails on some rows, and counts the calls."""

    def __init__(self, bad: set[int]) -> None:
        self.bad = bad
        self.calls = 0

    def fails(self, rows: Sequence[int]) -> str | None:
        self.calls += 1
        assert rows
        assert list(rows) == sorted(set(rows))
        first = next((row for row in rows if row in self.bad), None)
        return None if first is None else f"row {first}"


@settings(deadline=None)
@given(
    keys=st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=60),
    picks=st.sets(st.integers(0, 59), min_size=1, max_size=HOPELESS_AFTER - 1),
)
def test_exactly_the_failing_rows_are_found(keys: list[str], picks: set[int]) -> None:
    bad = {pick % len(keys) for pick in picks}
    function = Function(bad)
    assert failing_rows(keys, function.fails, "all", limit=0.1) == {
        row: f"row {row}" if function.calls else "all" for row in bad
    }


@settings(max_examples=20, deadline=None)
@given(at=st.sets(st.integers(0, 19_999), min_size=1, max_size=15))
def test_few_calls_find_few_keys_among_many(at: set[int]) -> None:
    function = Function(at)
    found = failing_rows([str(n) for n in range(20_000)], function.fails, "all", limit=0.1)
    assert found.keys() == at
    assert function.calls <= 1 + 2 * 15 * len(at)


def test_a_function_that_always_fails_is_given_up_soon() -> None:
    function = Function(set(range(100_000)))
    with pytest.raises(NotIsolatedError, match="every one of the first 16 keys"):
        failing_rows([str(n) for n in range(20_000)], function.fails, "all", limit=0.1)
    assert function.calls < 100


def test_thirty_failing_keys_among_many_are_found() -> None:
    bad = set(range(0, 20_000, 667))
    assert len(bad) == 30
    function = Function(bad)
    keys = [str(n) for n in range(20_000)]
    assert failing_rows(keys, function.fails, "all", limit=0.1).keys() == bad


def test_the_search_ends_at_the_limit() -> None:
    function = Function(set(range(0, 4096, 2)))
    keys = [str(n) for n in range(4096)]
    with pytest.raises(TooManyFailingError, match=r"410 or more of 4,096 keys.*limit=0\.1 allows"):
        failing_rows(keys, function.fails, "all", limit=0.1)
    assert function.calls < 2_000
    assert len(failing_rows(keys, function.fails, "all", limit=0.5)) == 2048


def test_changes_of_a_key_that_fail_only_together_go_together() -> None:
    def fails(rows: Sequence[int]) -> str | None:
        return "together" if {1, 4} <= set(rows) else None

    found = failing_rows(["a", "b", "a", "c", "b", "b"], fails, "all", limit=0.1)
    assert found == {1: "together", 4: "together", 5: "together"}


def test_keys_that_fail_only_together_are_not_blamed() -> None:
    with pytest.raises(NotIsolatedError, match="passes on both halves of 4 keys"):
        failing_rows(list("abcd"), lambda rows: "many" if len(rows) > 2 else None, "all", limit=1)


@pytest.mark.parametrize("bad", [0, 1, 6, 12])
def test_one_failing_row_is_found_in_few_calls(bad: int) -> None:
    calls: list[Sequence[int]] = []

    def fails(rows: Sequence[int]) -> str | None:
        calls.append(rows)
        return "bad" if bad in rows else None

    assert first_failing_row([str(row % 5) for row in range(13)], fails) == bad
    assert len(calls) <= 6


def test_a_failure_of_several_rows_together_is_pinned_on_none() -> None:
    def fails(rows: Sequence[int]) -> str | None:
        return "both" if {0, 12} <= set(rows) else None

    assert first_failing_row([str(row) for row in range(13)], fails) is None
    assert first_failing_row([], fails) is None
