"""The page of a change log leads to its sensor."""

from __future__ import annotations

from typing import Any

import pytest
from dagster import MetadataValue, SensorEvaluationContext
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from datazone_dagster.dagster_glue.names import WATCH_SENSOR
from datazone_dagster.dagster_glue.ui_links import WEBSERVER_VARIABLE
from tests.dagster_glue.conftest import World

ORIGIN = InProcessCodeLocationOrigin(
    LoadableTargetOrigin(python_file="definitions.py"), location_name="our team/shop.py"
)
PATH = "/locations/__repository__@our%20team%2Fshop.py/sensors/drain_orders"


@pytest.fixture
def as_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the contexts of sensors a code location, as the daemon does."""
    monkeypatch.setattr(SensorEvaluationContext, "code_location_origin", ORIGIN)
    monkeypatch.setattr(SensorEvaluationContext, "repository_name", "__repository__")


def links(events: Any) -> list[object]:
    return [one.metadata["sensor"] for one in events if "sensor" in one.metadata]


@pytest.mark.usefixtures("as_the_daemon")
@pytest.mark.parametrize(
    ("address", "link"),
    [(None, PATH), ("https://dagster.acme.dev/ui/", f"https://dagster.acme.dev/ui{PATH}")],
)
def test_materializations_and_the_check_drain_link_the_sensor(
    world: World, monkeypatch: pytest.MonkeyPatch, address: str | None, link: str
) -> None:
    if address is None:
        monkeypatch.delenv(WEBSERVER_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(WEBSERVER_VARIABLE, address)
    world.put("a")
    assert links(world.tick().materializations()) == [MetadataValue.url(link)]
    assert links(world.tick(WATCH_SENSOR).events) == [MetadataValue.url(link)]


def test_without_a_known_code_location_there_is_no_link(world: World) -> None:
    world.put("a")
    assert links(world.tick().events) == []
