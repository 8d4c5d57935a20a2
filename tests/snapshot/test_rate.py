from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.model.table_scan import TableDescription
from datazone_dagster.snapshot.rate import TokenBucket, units_per_second


def described(units: float | None, most: float | None) -> TableDescription:
    return TableDescription("orders", None, None, ("id",), 0, 0, units, most)


@pytest.mark.parametrize(
    ("units", "most", "asked", "limit"),
    [
        (1000.0, None, None, 500.0),
        (1000.0, 400.0, None, 200.0),
        (None, 400.0, None, 200.0),
        (None, None, None, 3000.0),
        (1000.0, None, 900.0, 900.0),
        (1000.0, 400.0, 900.0, 400.0),
        (None, None, 5000.0, 5000.0),
    ],
)
def test_the_limit_is_half_of_what_the_table_serves(
    units: float | None, most: float | None, asked: float | None, limit: float
) -> None:
    assert units_per_second(described(units, most), asked) == limit


@given(
    limit=st.floats(10, 5000),
    pages=st.lists(st.floats(0.5, 260), min_size=20, max_size=200),
    workers=st.integers(1, 8),
)
def test_the_units_of_any_pages_stay_within_the_limit(
    limit: float, pages: list[float], workers: int
) -> None:
    """Up to the pages in flight, and one second's worth that may be spent at once."""
    bucket, now, spent = TokenBucket(limit, 0.0), 0.0, 0.0
    flying: list[tuple[float, float]] = []
    for units in pages:
        while bucket.wait_seconds(now):
            now += bucket.wait_seconds(now)
        flying.append((bucket.start(now), units))
        if len(flying) == workers:
            taken, cost = flying.pop(0)
            now += 0.01
            bucket.finish(taken, cost, now)
            spent += cost
            # Two rounds in flight: the price of a page is known when it has arrived.
            assert spent <= limit * (now + 1.0) + 2 * workers * 260


def test_pages_of_one_size_are_within_five_per_cent_of_the_limit() -> None:
    bucket, now, spent = TokenBucket(500.0, 0.0), 0.0, 0.0
    while now < 120:
        now += bucket.wait_seconds(now)
        taken = bucket.start(now)
        now += 0.05
        bucket.finish(taken, 247.0, now)
        spent += 247.0
    assert spent / now == pytest.approx(500.0, rel=0.05)


def test_a_throttled_scan_slows_down_and_recovers() -> None:
    bucket = TokenBucket(1000.0, 0.0)
    waits = []
    for number in range(4):
        now = float(number * 100)
        bucket.throttled(bucket.start(now), now)
        waits.append(bucket.wait_seconds(now))
    assert waits == [1.0, 2.0, 4.0, 8.0]
    assert bucket.rate == 1000.0 / 16
    for number in range(100):
        bucket.finish(bucket.start(500.0 + number), 1.0, 500.0 + number)
    assert bucket.rate == 1000.0
    assert bucket.wait_seconds(700.0) == 0.0
