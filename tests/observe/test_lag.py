"""Lag: an idle stream is never late, a stuck one always is."""

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.observe.lag import DRAIN_GRACE, WARN_AFTER, LagStatus, in_words, lag_status
from datazone_dagster.observe.level import Level

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
MAX_LAG = timedelta(minutes=5)

spans = st.timedeltas(timedelta(0), timedelta(days=30))


def status(
    *,
    oldest: timedelta | None = None,
    caught_up: timedelta | None = timedelta(0),
    position: int = 5,
    head: int = 5,
    max_lag: timedelta = MAX_LAG,
) -> LagStatus:
    return lag_status(
        now=NOW,
        max_lag=max_lag,
        position=position,
        head_batch=head,
        oldest_unapplied_event_time=None if oldest is None else NOW - oldest,
        caught_up_at=None if caught_up is None else NOW - caught_up,
    )


@given(oldest=spans, caught_up=st.timedeltas(timedelta(0), DRAIN_GRACE))
def test_an_idle_stream_is_never_late(oldest: timedelta, caught_up: timedelta) -> None:
    found = status(oldest=oldest, caught_up=caught_up)
    assert (found.level, found.lag_seconds) == (Level.OK, 0)


@given(stuck=spans)
def test_a_stuck_drain_is_late_from_when_it_got_stuck(stuck: timedelta) -> None:
    found = status(caught_up=stuck)
    assert found.lag_seconds == (stuck.total_seconds() if stuck > DRAIN_GRACE else 0)


@given(oldest=spans)
def test_waiting_changes_count_from_the_oldest(oldest: timedelta) -> None:
    found = status(oldest=oldest, position=3)
    assert found.lag_seconds == oldest.total_seconds()
    assert found.pending_batches == 2


@given(spans, spans, st.timedeltas(timedelta(seconds=1), timedelta(days=1)))
def test_more_lag_is_never_a_better_level(a: timedelta, b: timedelta, max_lag: timedelta) -> None:
    order = [Level.OK, Level.WARN, Level.ERROR]
    levels = [
        order.index(status(oldest=one, position=4, max_lag=max_lag).level) for one in sorted((a, b))
    ]
    assert levels == sorted(levels)


@given(
    oldest=st.none() | st.timedeltas(-timedelta(days=1), timedelta(days=1)),
    caught_up=st.none() | st.timedeltas(-timedelta(days=1), timedelta(days=1)),
    position=st.integers(0, 10),
    head=st.integers(0, 10),
)
def test_nothing_is_negative_and_there_is_always_a_reason(
    oldest: timedelta | None, caught_up: timedelta | None, position: int, head: int
) -> None:
    found = status(oldest=oldest, caught_up=caught_up, position=position, head=head)
    assert min(found.lag_seconds, found.unapplied_seconds, found.unlanded_seconds) >= 0
    assert found.pending_batches >= 0
    assert found.lag_seconds == max(found.unapplied_seconds, found.unlanded_seconds)
    assert found.reason


@pytest.mark.parametrize(
    ("lag", "level"),
    [
        (WARN_AFTER - timedelta(seconds=1), Level.OK),
        (WARN_AFTER, Level.WARN),
        (MAX_LAG - timedelta(seconds=1), Level.WARN),
        (MAX_LAG, Level.ERROR),
    ],
)
def test_levels_begin_at_their_bounds(lag: timedelta, level: Level) -> None:
    assert status(oldest=lag, position=4).level is level


def test_a_max_lag_under_a_minute_has_no_warning() -> None:
    assert status(oldest=timedelta(seconds=10), position=4, max_lag=timedelta(seconds=9)).level is (
        Level.ERROR
    )


def test_the_reason_names_both_waits() -> None:
    reason = status(oldest=timedelta(minutes=3), caught_up=timedelta(minutes=2), head=6).reason
    assert "last read to its end 2 min ago" in reason
    assert "1 batch waits" in reason
    assert "3 min old" in reason


def test_an_unknown_drain_counts_as_no_lag() -> None:
    assert status(caught_up=None).unlanded_seconds == 0


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(0), "0 s"),
        (timedelta(seconds=42), "42 s"),
        (timedelta(minutes=5, seconds=10), "5 min 10 s"),
        (timedelta(days=2, hours=3, minutes=4), "2 d 3 h"),
    ],
)
def test_spans_in_words(span: timedelta, words: str) -> None:
    assert in_words(span) == words
