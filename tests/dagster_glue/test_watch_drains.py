"""What goes wrong between a table and a dataset looks different, each by its own check."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import AssetCheckEvaluation, AssetCheckKey, AssetKey, DagsterInstance
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._utils.error import (  # type: ignore[attr-defined]  # as the daemon writes it
    SerializableErrorInfo,
)

from datazone_dagster import Transform, transform
from datazone_dagster.errors import DatazoneError
from datazone_dagster.testing import Fault, FaultKind, FaultPlan, FixedClock, ScriptedStream
from tests.dagster_glue.conftest import MakeWorld, World, orders_transform

WATCH = "watch_drains"


@pytest.fixture
def make_world(tmp_path: Path, clock: FixedClock) -> Iterator[MakeWorld]:
    """Return a function that builds a world on an instance that stores ticks."""
    home = tmp_path / "home"
    home.mkdir()
    with DagsterInstance.local_temp(str(home)) as instance:

        def make(*transforms: Transform, extra: Any = None, **options: Any) -> World:
            stream = ScriptedStream("orders", clock=clock)
            chosen = list(transforms) or [orders_transform()]
            return World(tmp_path, instance, clock, stream, chosen, options, extra)

        yield make


class Daemon:
    """What the daemon writes about the drain sensor into the storage of the instance."""

    def __init__(self, world: World, interval: int = 5) -> None:
        location = InProcessCodeLocationOrigin(
            LoadableTargetOrigin(python_file="definitions.py"), location_name="shop"
        )
        self.world = world
        self.origin = RemoteInstigatorOrigin(
            RemoteRepositoryOrigin(location, "__repository__"), "drain_orders"
        )
        self.state = InstigatorState(
            self.origin,
            InstigatorType.SENSOR,
            InstigatorStatus.DECLARED_IN_CODE,
            SensorInstigatorData(min_interval=interval),
        )
        world.instance.add_instigator_state(self.state)

    def tick(self, error: str = "") -> None:
        """Evaluate the sensor as the daemon does, and record the tick."""
        try:
            self.world.tick()
        except DatazoneError as failure:
            error = error or str(failure)
        at = self.world.clock().timestamp()
        self.world.instance.create_tick(
            TickData(
                self.state.instigator_origin_id,
                "drain_orders",
                InstigatorType.SENSOR,
                TickStatus.FAILURE if error else TickStatus.SKIPPED,
                at,
                selector_id=self.state.selector_id,
                error=SerializableErrorInfo(error, [], None) if error else None,
            )
        )

    def stop(self) -> None:
        self.world.instance.update_instigator_state(
            self.state.with_status(InstigatorStatus.STOPPED)
        )


def seen(world: World) -> dict[str, AssetCheckEvaluation]:
    """Return the last evaluation of each check that tells about the way to the dataset."""
    names = {
        "drain": ["dynamodb", "orders"],
        "stream_health": ["dynamodb", "orders"],
        "headroom": ["dynamodb", "orders"],
        "lag": ["orders"],
    }
    found = {name: world.latest(AssetCheckKey(AssetKey(key), name)) for name, key in names.items()}
    return {name: one for name, one in found.items() if one is not None}


def verdicts(world: World) -> dict[str, str]:
    return {name: "OK" if one.passed else one.severity.value for name, one in seen(world).items()}


def value(world: World, check: str, key: str) -> Any:
    return seen(world)[check].metadata[key].value


def flowing(make_world: MakeWorld, **options: Any) -> tuple[World, Daemon]:
    world = make_world(**options)
    daemon = Daemon(world)
    world.put("a")
    world.clock.advance(timedelta(seconds=3))
    daemon.tick()
    world.run("apply_orders")
    return world, daemon


def test_an_idle_stream_is_fine_and_its_source_grows_old(make_world: MakeWorld) -> None:
    world, daemon = flowing(make_world)
    for _ in range(4):
        world.clock.advance(timedelta(minutes=10))
        daemon.tick()
        world.tick(WATCH)
    assert verdicts(world) == dict.fromkeys(("drain", "stream_health", "headroom", "lag"), "OK")
    assert value(world, "stream_health", "source_age_seconds") == 2403.0
    assert value(world, "headroom", "headroom_share") == 1.0
    through = datetime.fromtimestamp(value(world, "lag", "complete_through"))
    assert through.timestamp() == world.clock().timestamp()


def test_a_drain_that_stalls_fails_on_the_stream(make_world: MakeWorld) -> None:
    world, daemon = flowing(make_world)
    world.stream.faults = FaultPlan([Fault("*", FaultKind.UNAVAILABLE, times=None)])
    for _ in range(3):
        world.clock.advance(timedelta(minutes=3))
        daemon.tick()
        world.tick(WATCH)
    found = verdicts(world)
    assert (found["stream_health"], found["lag"]) == ("ERROR", "ERROR")
    assert "The stream was last read to its end 9 min" in str(seen(world)["lag"].description)
    assert value(world, "headroom", "headroom_seconds") == 24 * 3600 - 540.0


def test_a_stopped_sensor_is_told_though_it_does_not_tick(make_world: MakeWorld) -> None:
    world, daemon = flowing(make_world)
    world.tick(WATCH)
    daemon.stop()
    world.clock.advance(timedelta(minutes=6))
    world.tick(WATCH)
    assert verdicts(world) == {
        "drain": "ERROR",
        "stream_health": "OK",
        "headroom": "OK",
        "lag": "ERROR",
    }
    assert "Sensor drain_orders is stopped: nothing is read. Its last tick began 6 min" in str(
        seen(world)["drain"].description
    )
    assert value(world, "lag", "lag_seconds") == 360.0
    assert world.tick(WATCH).events == []  # told once
    world.clock.advance(timedelta(hours=19))
    world.tick(WATCH)
    assert verdicts(world)["headroom"] == "WARN"

    world.instance.update_instigator_state(daemon.state.with_status(InstigatorStatus.RUNNING))
    daemon.tick()
    world.tick(WATCH)
    assert set(verdicts(world).values()) == {"OK"}


def test_a_sensor_that_fails_is_told(make_world: MakeWorld) -> None:
    world, daemon = flowing(make_world)
    world.tick(WATCH)
    for expected in ("WARN", "WARN", "ERROR"):
        world.clock.advance(timedelta(seconds=5))
        daemon.tick(error="ImportError: no module named shop")
        world.tick(WATCH)
        assert verdicts(world)["drain"] == expected
    assert "no module named shop" in str(seen(world)["drain"].description)
    assert value(world, "drain", "failed_ticks") == 3


def test_a_failing_transform_is_late_and_its_stream_is_fine(make_world: MakeWorld) -> None:
    def broken(changes: Any) -> Any:
        raise ValueError("no such status")

    failing = transform(
        name="orders",
        input_mapping=orders_transform().input_mapping,
        output_mapping=orders_transform().output_mapping,
    )(broken)
    world = make_world(failing)
    daemon = Daemon(world)
    world.put("a")
    daemon.tick()
    world.run("apply_orders", raise_on_error=False)
    for _ in range(2):
        world.clock.advance(timedelta(minutes=3))
        daemon.tick()
        world.tick(WATCH)
    assert verdicts(world) == {
        "drain": "OK",
        "stream_health": "OK",
        "headroom": "OK",
        "lag": "ERROR",
    }
    assert value(world, "lag", "failures_in_a_row") == 1
    assert value(world, "lag", "pending_records") == 1
    assert value(world, "lag", "unlanded_seconds") == 0.0


def test_a_dead_daemon_leaves_a_tick_that_grows_old(make_world: MakeWorld) -> None:
    """No sensor ticks then. Whoever runs the check by hand, or looks at its time, sees it."""
    world, _ = flowing(make_world)
    world.tick(WATCH)
    world.clock.advance(timedelta(minutes=12))
    key = AssetCheckKey(AssetKey(["dynamodb", "orders"]), "drain")
    job = dg.define_asset_job("by_hand", selection=dg.AssetSelection.checks(key))
    world.defs = dg.Definitions.merge(world.defs, dg.Definitions(jobs=[job]))
    world.run("by_hand")
    assert verdicts(world)["drain"] == "ERROR"
    assert "runs but does not tick. Its last tick began 12 min" in str(
        seen(world)["drain"].description
    )


def test_a_sensor_that_nobody_has_seen_has_five_minutes(make_world: MakeWorld) -> None:
    world = make_world()
    world.tick(WATCH)
    assert verdicts(world)["drain"] == "OK"
    world.clock.advance(timedelta(minutes=6))
    world.tick(WATCH)
    assert verdicts(world)["drain"] == "ERROR"
    assert "has not ticked yet" in str(seen(world)["drain"].description)


def test_a_sensor_that_ticks_rarely_is_waited_for(make_world: MakeWorld) -> None:
    world = make_world(tick_seconds=600)
    daemon = Daemon(world, interval=600)
    daemon.tick()
    found = []
    for minutes in (9, 20, 2):
        world.clock.advance(timedelta(minutes=minutes))
        world.tick(WATCH)
        found.append(verdicts(world)["drain"])
    assert found == ["OK", "OK", "ERROR"]
