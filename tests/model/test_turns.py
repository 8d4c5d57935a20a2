"""Turns of transforms that share a run: nobody starves, nobody that is over or rests has a turn."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.model.turns import Turn, Turns

NAMES = ("a", "b", "c", "d")
PAUSE_SECONDS = 0.25

turn = st.tuples(st.sampled_from(Turn), st.floats(0.0, 10.0))
rest = st.tuples(st.just("rest"), st.floats(0.1, 20.0))
over = st.tuples(st.just("over"), st.just(0.0))


def turns(names: tuple[str, ...] = NAMES, **more: Any) -> Turns:
    return Turns(names, 0.0, pause_seconds=PAUSE_SECONDS, **more)


@given(script=st.lists(st.one_of(turn, turn, rest, over), max_size=60))
def test_between_two_turns_of_one_each_other_has_at_most_one(
    script: list[tuple[Turn | str, float]],
) -> None:
    found, now = turns(), 0.0
    since: dict[str, list[str]] = {name: [] for name in NAMES}
    """Turns of others since the last one of each, while it could have had one."""
    wakes = dict.fromkeys(NAMES, 0.0)
    for what, seconds in script:
        while isinstance(step := found.next(now), float):
            assert 0 < step <= PAUSE_SECONDS
            now += step
            since = {name: [] for name in NAMES}  # all of them may have a turn now
        if step is None:
            assert not found.left
            return
        assert step in found.left
        assert wakes[step] <= now
        for other, had in since.items():
            could = other != step and other in found.left and wakes[other] <= now
            if could and isinstance(what, Turn):
                had.append(step)
                assert had.count(step) == 1, (other, had)
        since[step] = []
        now += seconds if isinstance(what, Turn) else 0.0
        if isinstance(what, Turn):
            found.took(step, what, now)
        elif what == "rest":
            found.rest(step, wakes_at := now + seconds)
            wakes[step] = wakes_at
        else:
            found.is_over(step)


def test_a_pause_comes_only_after_a_round_without_work() -> None:
    found = turns(("a", "b"))
    asked = []
    for what in (Turn.WORKED, Turn.IDLE, Turn.WORKED, Turn.WAITS, Turn.IDLE):
        asked.append(found.next(0.0))
        assert isinstance(asked[-1], str)
        found.took(asked[-1], what, 0.0)
    assert asked == ["a", "b", "a", "b", "a"]
    assert found.next(0.0) == PAUSE_SECONDS
    assert found.next(0.0) == "b"


def test_a_run_ends_when_nobody_has_changes_or_its_time_is_over() -> None:
    found = turns(idle_seconds=30.0, longest_seconds=100.0)
    for name in found.left:
        found.took(name, Turn.IDLE, 0.0)
    assert not found.must_end(29.0)
    assert found.must_end(30.0)
    found.took("a", Turn.WAITS, 30.0)
    found.took("b", Turn.IDLE, 59.0)
    assert not found.must_end(59.0)
    assert found.must_end(60.0)
    found.rest("c", 70.0)
    assert found.must_end(60.0)
    found.rest("c", 70.0, counts=True)
    assert not found.must_end(99.0)
    assert found.must_end(100.0)
    found.end_by(80.0)
    found.end_by(90.0)
    assert found.must_end(80.0)


def test_a_run_does_not_end_before_each_transform_has_had_a_turn() -> None:
    """A process that is slow to start, or a long first chunk, is no time without changes."""
    found = turns(idle_seconds=30.0, longest_seconds=100.0)
    first, second, *others = found.left
    assert not found.must_end(90.0)
    found.took(first, Turn.IDLE, 90.0)
    found.rest(second, 95.0)
    assert not found.must_end(90.0)
    for name in others:
        found.is_over(name)
    assert found.must_end(90.0)
    assert turns(idle_seconds=30.0, longest_seconds=100.0).must_end(100.0)
