"""Simulated drain: the batch size in bursts, on slow stores and near the memory budget.

The tests of the controller and the plot in docs/performance.md use it. No stream, no clock, no
randomness without a seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from datazone_dagster.model.size_policy import BatchMeasured, BatchSize, SizeLimits

MIB = 1 << 20
LIMITS = SizeLimits(smallest_bytes=2 * MIB, largest_bytes=64 * MIB, target_seconds=4.0)
TICK_SECONDS = 5.0


@dataclass(frozen=True)
class World:
    """Surroundings of the controller, as functions of the time in seconds.

    `pressure` is the share of the memory budget in use with a batch of that many bytes in memory.
    """

    arriving_bytes_per_second: Callable[[float], float]
    work_bytes_per_second: Callable[[float], float] = lambda _: 150.0 * MIB
    commit_seconds: Callable[[float], float] = lambda _: 0.05
    pressure: Callable[[float, int], float] = lambda _, size: 0.3 * size / (64 * MIB)
    throttled: Callable[[float], bool] = lambda _: False
    noise: float = 0.2


@dataclass(frozen=True)
class Step:
    """One batch."""

    at_seconds: float
    size_bytes: int
    batch_bytes: int
    backlog_bytes: float
    seconds: float


def simulated(
    world: World, seconds: float, *, limits: SizeLimits = LIMITS, seed: int = 1
) -> Iterator[Step]:
    """Yield the batches of a drain that ticks every five seconds, and at once while behind."""
    rng = random.Random(seed)  # measurement noise, nothing secret
    size = BatchSize.first(limits)
    now = backlog = 0.0

    def noisy(value: float) -> float:
        return value * (1 + world.noise * (2 * rng.random() - 1))

    while now < seconds:
        batch_bytes = int(min(backlog, size.bytes))
        full = backlog >= size.bytes
        work = batch_bytes / noisy(world.work_bytes_per_second(now))
        commit = noisy(world.commit_seconds(now)) if batch_bytes else 0.0
        throttled = world.throttled(now)
        took = work + commit if full else max(TICK_SECONDS, work + commit)
        yield Step(now, size.bytes, batch_bytes, backlog, work + commit)
        size = size.after(
            BatchMeasured(
                bytes=batch_bytes,
                work_seconds=work,
                commit_seconds=commit,
                full=full and not throttled,
                memory_pressure=world.pressure(now, batch_bytes),
                throttled=throttled,
            )
        )
        arrived = sum(
            world.arriving_bytes_per_second(now + took * eighth / 8) * took / 8
            for eighth in range(8)
        )
        backlog += arrived - batch_bytes
        now += took


def bursts(at_seconds: float) -> float:
    """Return a trickle, and for one minute in five the rate of a hundred busy partitions."""
    return 120.0 * MIB if at_seconds % 300 >= 240 else 0.05 * MIB


SCENARIOS: dict[str, World] = {
    "bursts": World(bursts),
    "slow storage from 300 s to 600 s": World(
        lambda _: 8.0 * MIB,
        commit_seconds=lambda at: 3.0 if 300 <= at < 600 else 0.1,
        work_bytes_per_second=lambda _: 12.0 * MIB,
    ),
    "throttled from 300 s to 400 s": World(
        lambda _: 20.0 * MIB,
        work_bytes_per_second=lambda _: 25.0 * MIB,
        throttled=lambda at: 300 <= at < 400,
    ),
    "memory taken by others from 300 s on": World(
        lambda _: 140.0 * MIB,
        work_bytes_per_second=lambda _: 150.0 * MIB,
        pressure=lambda at, size: (0.5 if at >= 300 else 0.1) + 0.8 * size / (64 * MIB),
    ),
    "idle": World(lambda _: 0.02 * MIB),
}
