"""The size policy: limits from the memory budget, sizes within them, steady when the world is.

`benchmarks.batch_simulation` simulates the environment; docs/performance.md plots the same runs.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.batch_plot import drawn
from benchmarks.batch_simulation import LIMITS, MIB, SCENARIOS, Step, World, simulated
from datazone_dagster.model import size_policy
from datazone_dagster.model.size_policy import (
    LARGEST_STEP,
    BatchMeasured,
    BatchSize,
    ChunkBounds,
    SizeLimits,
    available_bytes,
    batch_limits,
    batch_memory_share,
    chunk_bounds,
    frame_memory_bytes,
    full_chunk_limits,
    known_changes,
    retains_freed_memory,
    rows_chunk_limits,
    working_bytes,
)

measurements = st.builds(
    BatchMeasured,
    bytes=st.integers(0, 1 << 32),
    work_seconds=st.floats(0, 1e4),
    commit_seconds=st.floats(0, 1e3),
    full=st.booleans(),
    memory_pressure=st.floats(0, 3),
    throttled=st.booleans(),
)


@given(st.lists(measurements, max_size=40))
def test_whatever_is_measured_the_size_stays_in_its_limits_and_grows_in_steps(
    measured: list[BatchMeasured],
) -> None:
    size = BatchSize.first(LIMITS)
    for one in measured:
        before, size = size, size.after(one)
        assert LIMITS.smallest_bytes <= size.bytes <= LIMITS.largest_bytes
        assert size.bytes <= max(before.bytes * LARGEST_STEP, LIMITS.smallest_bytes)
        if one.memory_pressure > 0.9 or one.throttled:
            assert size.bytes <= max(before.bytes, LIMITS.smallest_bytes)


def run(name: str, seconds: float = 900) -> list[Step]:
    return list(simulated(SCENARIOS[name], seconds))


def between(steps: list[Step], begin: float, end: float) -> list[int]:
    return [step.size_bytes for step in steps if begin <= step.at_seconds < end]


def turns(sizes: list[int]) -> int:
    """Count the changes between growing and shrinking."""
    moves = [after > before for before, after in itertools.pairwise(sizes) if after != before]
    return sum(one != other for one, other in itertools.pairwise(moves))


def test_a_burst_is_met_with_large_batches_and_drained() -> None:
    steps = run("bursts")
    assert max(between(steps, 245, 300)) == LIMITS.largest_bytes
    # The first tick of a burst finds the records since the tick before: at most 600 MiB.
    assert max(step.backlog_bytes for step in steps) < 700 * MIB
    assert all(step.backlog_bytes < MIB for step in steps if 310 <= step.at_seconds < 540)
    assert turns([step.size_bytes for step in steps]) <= 2


def test_idle_changes_nothing() -> None:
    assert set(between(run("idle"), 0, 900)) == {BatchSize.first(LIMITS).bytes}


def test_a_slow_commit_makes_batches_larger_and_they_rest() -> None:
    steps = run("slow storage from 300 s to 600 s", 1200)
    before, slow, after = (
        between(steps, 200, 300),
        between(steps, 400, 600),
        between(steps, 800, 1200),
    )
    assert min(slow) > 1.1 * max(before)
    assert max(after) < 1.5 * max(before)
    for calm in (before, slow, after):
        assert turns(calm) <= 1
        assert max(calm) <= 1.6 * min(calm)
    # Three seconds of commit per two seconds of work would fall further and further behind.
    assert steps[-1].backlog_bytes < 64 * MIB


def test_throttling_shrinks_batches_until_it_is_over() -> None:
    steps = run("throttled from 300 s to 400 s")
    assert between(steps, 390, 400)[-1] == LIMITS.smallest_bytes
    assert min(between(steps, 600, 900)) > 16 * MIB
    assert turns(between(steps, 600, 900)) <= 1


def test_near_the_memory_budget_the_size_comes_to_rest_below_it() -> None:
    steps = run("memory taken by others from 300 s on")
    assert max(between(steps, 100, 300)) == LIMITS.largest_bytes
    late = [step for step in steps if step.at_seconds > 400]
    world = SCENARIOS["memory taken by others from 300 s on"]
    assert all(world.pressure(step.at_seconds, step.batch_bytes) <= 0.9 for step in late)
    assert turns([step.size_bytes for step in late]) == 0


@pytest.mark.parametrize("seed", range(5))
@given(
    rate=st.floats(1, 400), commit_seconds=st.floats(0.01, 5), noise=st.sampled_from([0, 0.1, 0.3])
)
def test_a_steady_world_means_a_steady_size(
    seed: int, rate: float, commit_seconds: float, noise: float
) -> None:
    world = World(
        lambda _: 10_000.0 * MIB,
        work_bytes_per_second=lambda _: rate * MIB,
        commit_seconds=lambda _: commit_seconds,
        noise=noise,
    )
    steps = itertools.islice(simulated(world, 1e6, seed=seed), 120)
    late = [step.size_bytes for step in steps][40:]
    assert max(late) <= 1.9 * min(late)
    assert turns(late) <= len(late) // 8


def test_the_plot_in_the_documentation_is_of_this_controller() -> None:
    """If this fails, run `python -m benchmarks.batch_plot`."""
    assert Path("docs/batch-size.svg").read_text() == drawn()


@pytest.mark.parametrize(
    ("budget", "largest"), [(256 * MIB, 32 * MIB), (8 * MIB, 2 * MIB), (4096 * MIB, 64 * MIB)]
)
def test_a_batch_is_at_most_an_eighth_of_the_budget_and_two_mebibytes_at_least(
    budget: int, largest: int
) -> None:
    assert batch_limits(budget) == SizeLimits(2 * MIB, largest, target_seconds=4.0)


def test_memory_that_a_drain_found_is_not_its_own() -> None:
    assert batch_memory_share(512 * MIB, 112 * MIB, 312 * MIB) == 0.5
    assert batch_memory_share(512 * MIB, 112 * MIB, 100 * MIB) == 0.0
    # A process near its budget drains too: batches count against a quarter of the budget.
    assert batch_memory_share(512 * MIB, 500 * MIB, 564 * MIB) == 0.5


def test_a_small_budget_returns_freed_memory() -> None:
    assert retains_freed_memory(512 * MIB, 150 * MIB)
    assert not retains_freed_memory(512 * MIB, 300 * MIB)  # the process is large
    assert not retains_freed_memory(256 * MIB, 150 * MIB)
    assert retains_freed_memory(1024 * MIB, 1024 * MIB)


def test_a_small_budget_keeps_the_numbers_of_fewer_changes() -> None:
    process = 150 * MIB
    assert known_changes(512 * MIB, process) == size_policy.MOST_KNOWN_CHANGES
    of_small = known_changes(256 * MIB, process)
    assert of_small * size_policy.KNOWN_CHANGE_BYTES < 12 * MIB
    assert known_changes(64 * MIB, process) > 5_000  # the process alone is larger
    assert known_changes(64 * MIB, process) < of_small


def test_working_memory_is_what_the_process_leaves_but_enough_for_a_batch() -> None:
    assert available_bytes(1024 * MIB, 200 * MIB, first_chunk=False) == 824 * MIB
    assert available_bytes(1024 * MIB, 200 * MIB, first_chunk=True) == 704 * MIB
    assert available_bytes(1024 * MIB, 2000 * MIB, first_chunk=False) == 0
    assert working_bytes(0) == 192 * MIB
    assert frame_memory_bytes(192 * MIB) == 128 * MIB
    assert frame_memory_bytes(1024 * MIB) == 512 * MIB
    assert frame_memory_bytes(4096 * MIB) == 1024 * MIB


def test_a_chunk_with_every_change_is_a_sixteenth_of_the_working_memory() -> None:
    assert full_chunk_limits(800 * MIB) == SizeLimits(8 * MIB, 50 * MIB, target_seconds=5.0)
    assert full_chunk_limits(64 * MIB) == SizeLimits(8 * MIB, 8 * MIB, target_seconds=5.0)
    assert rows_chunk_limits() == SizeLimits(8 * MIB, 8192 * MIB, target_seconds=5.0)


def test_only_the_memory_of_latest_changes_is_bounded_beyond_their_decoded_bytes() -> None:
    assert chunk_bounds(MIB, None) == ChunkBounds(MIB)
    assert chunk_bounds(MIB, 80.0) == ChunkBounds(MIB, 80.0)
    bounds = chunk_bounds(MIB, 80.0, 700 * MIB)
    assert bounds == ChunkBounds(MIB, 80.0, retained_bytes=100 * MIB, most_bytes=150 * MIB)
    every = chunk_bounds(MIB, 80.0, 770 * MIB, latest_only=False)
    assert every.retained_bytes == 70 * MIB, "less where a merge takes more for each of them"
    smaller = bounds.after_too_much(120.0)
    assert smaller == ChunkBounds(MIB, 120.0, retained_bytes=50 * MIB, most_bytes=150 * MIB)


def test_chunks_are_joined_until_their_merge_is_a_small_part_of_the_time() -> None:
    assert size_policy.joins_more(4.9, commit_seconds=0.0)
    assert not size_policy.joins_more(5.0, commit_seconds=0.5)
    assert size_policy.joins_more(9.9, commit_seconds=2.0)
    assert not size_policy.joins_more(10.0, commit_seconds=2.0)
    assert size_policy.joined_bytes(700) == 50
