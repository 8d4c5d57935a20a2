"""Alerts: once per change, again if the function failed, never for an unchanged check."""

from __future__ import annotations

from datetime import timedelta

import pytest

from datazone_dagster import CheckEvent, DatazoneError, slack_alert
from datazone_dagster.dagster_glue.alerts.alerts import slack_text
from tests.dagster_glue.conftest import MakeWorld, World, orders_transform

ALERTS = "datazone_check_alerts"


@pytest.fixture
def events() -> list[CheckEvent]:
    return []


@pytest.fixture
def watched(make_world: MakeWorld, events: list[CheckEvent]) -> World:
    return make_world(on_check=events.append)


def make_late(world: World, by: timedelta) -> None:
    world.clock.advance(by)
    world.tick()
    world.tick(ALERTS)


def test_each_change_is_reported_once(watched: World, events: list[CheckEvent]) -> None:
    watched.put("a")
    make_late(watched, timedelta(0))
    assert events == []
    make_late(watched, timedelta(minutes=2))
    make_late(watched, timedelta(seconds=40))
    assert [(one.check, one.passed, one.severity) for one in events] == [("lag", False, "WARN")]
    make_late(watched, timedelta(minutes=3))
    make_late(watched, timedelta(minutes=3))
    assert [one.severity for one in events] == ["WARN", "ERROR"]
    watched.run("apply_orders")
    watched.tick(ALERTS)
    watched.tick(ALERTS)
    assert [(one.passed, one.severity) for one in events[2:]] == [(True, "ERROR")]
    assert events[1].asset == "orders"
    assert events[1].metadata["lag_seconds"] == 340.0
    assert "1 batch waits" in events[1].description


def test_a_function_that_raises_is_called_again(make_world: MakeWorld) -> None:
    calls: list[CheckEvent] = []

    def flaky(event: CheckEvent) -> None:
        calls.append(event)
        if len(calls) < 3:
            raise ConnectionError("chat is down")

    world = make_world(on_check=flaky)
    world.put("a")
    make_late(world, timedelta(0))
    make_late(world, timedelta(minutes=2))
    assert world.tick(ALERTS).skip == "0 sent, 1 to be retried."
    assert world.tick(ALERTS).skip == "1 sent, 0 to be retried."
    assert world.tick(ALERTS).skip == "0 sent, 0 to be retried."
    assert len(calls) == 3


def test_a_slow_function_goes_on_at_the_next_tick(make_world: MakeWorld) -> None:
    told: list[str] = []

    def slow(event: CheckEvent) -> None:
        world.clock.advance(timedelta(seconds=21))
        told.append(event.asset)

    world = make_world(orders_transform("orders"), orders_transform("others"), on_check=slow)
    world.put("a")
    make_late(world, timedelta(0))
    world.clock.advance(timedelta(minutes=6))
    world.tick()
    assert world.tick(ALERTS).skip == "1 sent, 1 to be retried."
    assert world.tick(ALERTS).skip == "1 sent, 0 to be retried."
    assert told == ["orders", "others"]


def test_a_check_that_takes_long_and_fails_does_not_hold_back_others(make_world: MakeWorld) -> None:
    told: list[str] = []

    def picky(event: CheckEvent) -> None:
        if event.asset == "orders":
            world.clock.advance(timedelta(seconds=21))
            raise TimeoutError
        told.append(event.asset)

    names = ("orders", "others", "third")
    world = make_world(*map(orders_transform, names), on_check=picky)
    world.put("a")
    make_late(world, timedelta(0))
    world.clock.advance(timedelta(minutes=6))
    world.tick()
    assert world.tick(ALERTS).skip == "0 sent, 3 to be retried."
    assert world.tick(ALERTS).skip == "2 sent, 1 to be retried."
    assert told == ["others", "third"]


def test_the_cursor_of_an_older_version_is_read(watched: World, events: list[CheckEvent]) -> None:
    watched.cursors[ALERTS] = '{"orders:lag": "ERROR"}'
    watched.put("a")
    watched.tick()
    make_late(watched, timedelta(minutes=6))
    assert events == []
    watched.run("apply_orders")
    watched.tick(ALERTS)
    assert [(one.check, one.passed, one.severity) for one in events] == [("lag", True, "ERROR")]


def test_without_its_cursor_it_reports_failing_checks_again(
    watched: World, events: list[CheckEvent]
) -> None:
    watched.put("a")
    make_late(watched, timedelta(0))
    make_late(watched, timedelta(minutes=2))
    watched.cursors[ALERTS] = "garbage"
    watched.tick(ALERTS)
    watched.tick(ALERTS)
    assert len(events) == 2


def test_there_is_no_sensor_without_a_function(world: World) -> None:
    assert [one.name for one in world.defs.sensors or []] == [*("drain_orders", "watch_drains")]


def test_only_functions_are_accepted(make_world: MakeWorld) -> None:
    with pytest.raises(DatazoneError, match="on_check"):
        make_world(on_check="#alerts")


def test_slack_text_is_one_line_that_pings_nobody() -> None:
    event = CheckEvent("orders", "lag", False, "ERROR", "<!channel> & more")
    assert slack_text(event) == (
        ":rotating_light: orders: check lag fails (ERROR). &lt;!channel&gt; &amp; more"
    )
    assert slack_text(CheckEvent("orders", "lag", True, "WARN", "")).startswith(
        ":white_check_mark: orders: check lag recovered."
    )


def test_slack_without_its_library_says_what_to_install() -> None:
    try:
        import dagster_slack  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError:
        with pytest.raises(DatazoneError, match="slack"):
            slack_alert("xoxb-1", "#alerts")
    else:
        assert callable(slack_alert("xoxb-1", "#alerts"))
