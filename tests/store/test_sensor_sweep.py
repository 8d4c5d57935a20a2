"""Every request of a sensor's tick may fail: the tick says so in a check, or is not disturbed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import timedelta

import pytest

from datazone_dagster.errors import DatazoneError, StorageError
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform
from tests.dagster_glue.conftest import KEYS, SOURCE, World
from tests.store.proxy import Proxy
from tests.store.sensor_world import sensor_world
from tests.store.sweep import FAULTS, MORE_REQUESTS
from tests.store.sweep_table import SWEEP, SweptStep

SEED = 20261129
SAMPLED = 4


@pytest.fixture
def world(s3_lakehouse: Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    layout = Layout(s3_lakehouse.uri, {**s3_lakehouse.storage_options, "max_retries": "0"})
    with sensor_world(layout, tmp_path_factory.mktemp("w")) as found:
        yield found


def struck_tick(world: World, proxy: Proxy, fault: object, nth: int) -> str | None:
    """Strike a tick that lands a change; return what is wrong with it."""
    world.put(f"k{nth}", f"{fault}")
    world.clock.advance(timedelta(seconds=31))
    proxy.break_requests(fault, nth=nth)  # type: ignore[arg-type]  # one of FAULTS
    error: Exception | None = None
    try:
        tick = world.tick()
    except DatazoneError as caught:
        error = caught
    except Exception as caught:  # noqa: BLE001  # whatever is not ours is what the test looks for
        return f"raw {type(caught).__name__}: {caught}"
    finally:
        proxy.heal()
    if error is None:
        return None if tick.checks() else "no check"
    if not isinstance(error, StorageError):
        return f"{type(error).__name__}: {error}"
    health = world.latest(KEYS.source_check(SOURCE, "stream_health"))
    if health is None or health.passed or str(error.args[0])[:40] not in str(health.description):
        return f"the check does not say {error}"
    return None


def swept(world: World, proxy: Proxy, positions: Iterator[tuple[object, int]]) -> list[str]:
    world.put("a")
    world.tick()
    apply_transform(world.transforms[0], world.layout)
    wrong, keys = [], {"a"}
    for fault, nth in positions:
        keys.add(f"k{nth}")
        found = struck_tick(world, proxy, fault, nth)
        wrong += [f"request {nth}, {fault}: {found}"] if found else []
        world.tick()
        apply_transform(world.transforms[0], world.layout)
    assert set(world.rows()) == keys
    return wrong


def requests_of_a_tick(world: World, proxy: Proxy) -> int:
    world.put("a")
    with proxy.counted() as counts:
        world.tick()
    return len(counts)


def test_a_sample_of_a_ticks_requests(world: World, proxy: Proxy) -> None:
    world.tick()
    requests_of_a_tick(world, proxy)
    requests, choice = requests_of_a_tick(world, proxy), random.Random(SEED)
    positions = [(choice.choice(FAULTS), choice.randint(1, requests)) for _ in range(SAMPLED)]
    assert swept(world, proxy, iter(positions)) == [], f"seed {SEED}"


@pytest.mark.store
@pytest.mark.timeout(1800)
def test_every_request_of_a_tick(
    world: World, proxy: Proxy, record_property: Callable[[str, object], None]
) -> None:
    world.tick()
    requests_of_a_tick(world, proxy)
    requests = requests_of_a_tick(world, proxy)
    positions = [(fault, nth) for nth in range(1, requests + 1 + MORE_REQUESTS) for fault in FAULTS]
    wrong = swept(world, proxy, iter(positions))
    raw = sum("raw" in one for one in wrong)
    step = SweptStep("sensor's evaluation", requests, len(positions), raw, lost=0, doubled=0)
    record_property(SWEEP, asdict(step))
    assert wrong == []
