"""Failures of transforms that share runs, from run to run."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.model.retries import (
    FIRST_WAIT,
    LONGEST_WAIT,
    Retry,
    carried_on,
    from_json,
    to_json,
    wait_after,
)

START = datetime(2026, 1, 1, tzinfo=timezone.utc)

moments = st.integers(0, 10_000).map(lambda seconds: START + timedelta(seconds=seconds))
records = st.builds(Retry, st.integers(1, 20), moments, st.text(max_size=20), st.text(max_size=5))
by_name = st.dictionaries(st.sampled_from("abc"), records)


@given(st.integers(0, 10_000))
def test_the_wait_doubles_within_its_bounds(failures: int) -> None:
    wait = wait_after(failures)
    assert FIRST_WAIT <= wait <= LONGEST_WAIT
    assert wait_after(failures + 1) == min(2 * wait if failures else wait, LONGEST_WAIT)


@given(by_name)
def test_a_tag_is_read_as_it_was_written(known: dict[str, Retry]) -> None:
    assert from_json(to_json(known)) == known


@pytest.mark.parametrize("text", [None, "", "{", "[]", "3", '{"a": 1}', '{"a": [1, "x", "", ""]}'])
def test_a_tag_that_somebody_wrote_counts_as_none(text: str | None) -> None:
    assert from_json(text) == {}


@given(before=by_name, failed=by_name, ended=moments)
def test_what_is_carried_on(
    before: dict[str, Retry], failed: dict[str, Retry], ended: datetime
) -> None:
    found = carried_on(before, failed, ended)
    assert failed.items() <= found.items()
    for name, one in before.items():
        if name not in failed:  # it waited through the run, or it was tried and did not fail
            assert (name in found) == (one.until >= ended)
    assert carried_on(before, failed, None) == {**before, **failed}
