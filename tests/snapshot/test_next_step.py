"""Every step of a snapshot, and what makes it begin again; no table is needed for that."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.model.checkpoint import Checkpoint, GapNote, ShardCheckpoint
from datazone_dagster.model.report import Gap
from datazone_dagster.model.snapshot_report import report_of
from datazone_dagster.model.snapshot_state import (
    Phase,
    Scanned,
    SnapshotState,
    announced,
    cancelled,
    caught_up,
    done,
    landed,
    opened,
    scan_started,
    swept,
    wanted,
)
from datazone_dagster.snapshot.next_step import Action, Facts, next_step, why_again

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
ANNOUNCED = announced(wanted("start"), epoch=2, at=NOW, consistent_reads=True, table_id="t1")
STARTED = scan_started(ANNOUNCED, segments=3, at=NOW)
SCANNED = replace(
    landed(
        opened(STARTED, 3),
        Scanned(dict.fromkeys(range(3)), 5, 50, 2.5, NOW + timedelta(minutes=5)),
    ),
    last_scan_batch=7,
)
CAUGHT_UP = caught_up(SCANNED, 9)


def facts(
    read: timedelta | None,
    *,
    epoch: int = 2,
    positions: dict[str, int] | None = None,
    gap: Gap | None = None,
    table_id: str = "t1",
) -> Facts:
    tip = None if read is None else NOW + read
    note = None if gap is None else GapNote(gap, NOW)
    row = ShardCheckpoint("arn", "s", NOW, tip_at=tip, gap=note)
    return Facts(Checkpoint(1, epoch, "arn", {("arn", "s"): row}), positions or {}, table_id)


@pytest.mark.parametrize(
    ("state", "seen", "action"),
    [
        (None, facts(None), Action.NOTHING),
        (wanted("start"), facts(None), Action.ANNOUNCE),
        (ANNOUNCED, facts(None), Action.WAIT),
        (ANNOUNCED, facts(timedelta(seconds=60)), Action.WAIT),
        (ANNOUNCED, facts(timedelta(seconds=61)), Action.START_SCAN),
        (STARTED, facts(timedelta(seconds=61)), Action.SCAN),
        (SCANNED, facts(timedelta(minutes=5)), Action.WAIT),
        (SCANNED, facts(timedelta(minutes=5, seconds=1)), Action.WAIT),
        (SCANNED, facts(timedelta(minutes=5, seconds=2)), Action.MARK_CAUGHT_UP),
        (CAUGHT_UP, facts(timedelta(hours=1), positions={"a": 9, "b": 8}), Action.WAIT),
        (CAUGHT_UP, facts(timedelta(hours=1), positions={"a": 9, "b": 10}), Action.SWEEP),
        (CAUGHT_UP, facts(timedelta(hours=1)), Action.SWEEP),
        (done(CAUGHT_UP, NOW), facts(None, epoch=9), Action.NOTHING),
        (cancelled(STARTED), facts(None, epoch=9), Action.NOTHING),
    ],
)
def test_each_step_follows_from_the_state(
    state: SnapshotState | None, seen: Facts, action: Action
) -> None:
    step = next_step(state, seen)
    assert step.action is action
    assert bool(step.why) == (action is Action.WAIT)


@pytest.mark.parametrize("ahead", [timedelta(hours=-48), timedelta(hours=48)])
def test_what_was_lost_and_the_announcement_are_compared_by_the_clock_of_the_service(
    ahead: timedelta,
) -> None:
    state = announced(
        wanted("resync"),
        epoch=2,
        at=NOW + ahead,
        consistent_reads=True,
        table_id="t1",
        served_at=NOW,
    )
    assert not state.is_broken_by(NOW)
    assert state.is_broken_by(NOW + timedelta(seconds=1))
    assert report_of("orders", state).announced_at == NOW


def test_the_sweep_goes_on_over_its_own_batches() -> None:
    sweeping = replace(swept(CAUGHT_UP, deleted=1, present=0, through="k"), last_scan_batch=10)
    assert next_step(sweeping, facts(timedelta(hours=1), positions={"a": 9})).action is Action.SWEEP


@pytest.mark.parametrize("state", [ANNOUNCED, STARTED, SCANNED, CAUGHT_UP])
@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (facts(None, epoch=3), "the stream was replaced"),
        (facts(None, table_id="t2"), "re-created"),
        (facts(None, gap=Gap("arn", "s", "trimmed", until=NOW + timedelta(seconds=1))), "trimmed"),
        (facts(None, gap=Gap("arn", "s", "vanished")), "vanished"),
    ],
)
def test_what_breaks_the_handover_makes_it_begin_again(
    state: SnapshotState, seen: Facts, why: str
) -> None:
    step = next_step(state, seen)
    assert step.action is Action.ANNOUNCE
    assert why in step.why


def test_changes_lost_before_the_announcement_do_no_harm() -> None:
    assert not why_again(STARTED, facts(None, gap=Gap("arn", "s", "trimmed", until=NOW)))


@given(segments=st.integers(1, 500), most=st.integers(1, 20))
def test_every_segment_is_begun_once_and_neighbours_apart(segments: int, most: int) -> None:
    state, begun = scan_started(ANNOUNCED, segments=segments, at=NOW), []
    while state.phase is Phase.SCANNING:
        before = set(state.open)
        state = opened(state, most)
        assert len(state.open) <= most
        begun += [one for one in state.open if one not in before]
        first = next(iter(state.open))
        state = landed(state, Scanned({first: None}, 1, 1, 1.0, NOW))
        assert report_of("orders", state).segments_done == state.segments_done
    assert sorted(begun) == list(range(segments))
    if segments > 8:
        assert all(abs(one - other) > 1 for one, other in itertools.pairwise(begun))


STATES = [
    wanted("resync", done(CAUGHT_UP, NOW)),
    ANNOUNCED,
    opened(STARTED, 2),
    replace(opened(STARTED, 2), open={1: '{"id":{"S":"ü"}}', 2: None}),
    SCANNED,
    swept(CAUGHT_UP, deleted=3, present=1, through="2:idS1:a"),
    done(CAUGHT_UP, NOW),
]


@pytest.mark.parametrize("state", STATES)
def test_the_stored_text_gives_the_state_back(state: SnapshotState) -> None:
    text = state.to_json()
    assert SnapshotState.from_json(text) == state
    later = text[:-1] + ',"a_later_field":[1]}'
    assert SnapshotState.from_json(later) == state


def test_a_wish_keeps_the_epoch_of_the_snapshot_before() -> None:
    assert wanted("resync", done(CAUGHT_UP, NOW)).epoch == 2
