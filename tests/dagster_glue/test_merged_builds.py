"""Several `build_definitions` in one code location, merged by `Definitions.merge`."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetKey,
    DagsterEventType,
    DagsterInstance,
    DagsterInvalidDefinitionError,
    DagsterInvariantViolationError,
    Definitions,
    asset,
    build_sensor_context,
)

from datazone_dagster import Lakehouse, Transform, build_definitions
from datazone_dagster.pipeline import DrainSettings, read_dataset
from datazone_dagster.testing import FixedClock, ScriptedStream
from tests.dagster_glue.conftest import ScriptedResource, orders_transform


class Place:
    """A lakehouse, a stream and an instance; each build gets resources of its own."""

    def __init__(self, root: Path) -> None:
        self.uri = str(root / "lake")
        self.clock = FixedClock()
        self.stream = ScriptedStream("orders", clock=self.clock)
        ScriptedResource.streams = {"orders": self.stream}
        ScriptedResource.built = []

    def build(self, *transforms: Transform, **options: Any) -> Definitions:
        return build_definitions(
            transforms,
            lakehouse=Lakehouse(uri=self.uri),
            dynamodb=ScriptedResource(),
            clock=self.clock,
            **options,
        )

    def put(self, key: str) -> None:
        self.stream.put({"id": {"S": key}, "status": {"S": "placed"}})


def tick(defs: Definitions, instance: DagsterInstance, sensor: str = "drain_orders") -> Any:
    definition = defs.resolve_sensor_def(sensor)
    resources = defs.resources or {}
    with build_sensor_context(
        instance=instance,
        definitions=defs,
        resources={key: resources[key] for key in definition.required_resource_keys},
    ) as context:
        return definition.evaluate_tick(context)


def requested(found: Any) -> set[str]:
    return {one.job_name for one in found.run_requests or []}


def names(defs: Definitions) -> list[str]:
    return sorted(one.name for one in defs.get_repository_def().sensor_defs)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_one_sensor_drains_once_and_requests_the_runs_of_all(place: Place) -> None:
    first = place.build(orders_transform("first"))
    second = place.build(orders_transform("second"))
    merged = Definitions.merge(first, second)
    Definitions.validate_loadable(merged)
    assert names(merged) == ["drain_orders", "watch_drains"]
    place.put("a")
    with DagsterInstance.ephemeral() as instance:
        found = tick(merged, instance)
        assert requested(found) == {"apply_first", "apply_second"}
        assert ScriptedResource.built == ["orders"]
        for job in sorted(requested(found)):
            assert merged.resolve_job_def(job).execute_in_process(instance=instance).success
        for dataset in ("first", "second"):
            layout = Lakehouse(uri=place.uri).layout
            assert read_dataset(layout, dataset)["id"].to_pylist() == ["a"]
        assert requested(tick(merged, instance)) == set()


def test_definitions_that_were_merged_with_others_before_can_be_merged(place: Place) -> None:
    def team(name: str) -> Definitions:
        @asset(name=f"report_of_{name}")
        def report() -> None: ...

        own = Definitions(assets=[report])
        return Definitions.merge(place.build(orders_transform(name)), own)

    merged = Definitions.merge(team("first"), team("second"), team("third"))
    Definitions.validate_loadable(merged)
    place.put("a")
    with DagsterInstance.ephemeral() as instance:
        jobs = {"apply_first", "apply_second", "apply_third"}
        assert requested(tick(merged, instance)) == jobs


def test_each_works_alone_as_well(place: Place) -> None:
    first = place.build(orders_transform("first"))
    second = place.build(orders_transform("second"))
    place.put("a")
    with DagsterInstance.ephemeral() as instance:
        for defs, name in ((first, "first"), (second, "second")):
            Definitions.validate_loadable(defs)
            found = tick(defs, instance)
            assert requested(found) == {f"apply_{name}"}
            assert {str(one.asset_key.path[-1]) for one in found.asset_events} <= {name, "orders"}


def test_maintenance_and_alerts_cover_all(place: Place) -> None:
    seen: list[Any] = []
    first = place.build(
        orders_transform("first", max_lag=timedelta(seconds=1)), on_check=seen.append
    )
    second = place.build(
        orders_transform("second", max_lag=timedelta(seconds=1)), on_check=seen.append
    )
    # `seen.append` is another object each time it is read, and equal.
    merged = Definitions.merge(first, second)
    assert names(merged) == ["datazone_check_alerts", "drain_orders", "watch_drains"]
    place.put("a")
    with DagsterInstance.ephemeral() as instance:
        tick(merged, instance)
        place.clock.advance(timedelta(hours=1))
        for event in tick(merged, instance).asset_events:
            instance.report_runless_asset_event(event)
        tick(merged, instance, "datazone_check_alerts")
        assert {(one.asset, one.check) for one in seen} == {("first", "lag"), ("second", "lag")}
        for job in ("apply_first", "apply_second"):
            merged.resolve_job_def(job).execute_in_process(instance=instance)
        done = merged.resolve_job_def("datazone_maintenance").execute_in_process(instance=instance)
        observed = [
            event.asset_key
            for event in done.all_events
            if event.event_type is DagsterEventType.ASSET_OBSERVATION
        ]
        assert observed == [AssetKey("first"), AssetKey("second")]


def test_a_build_that_replaces_an_older_one_of_the_same_transforms(place: Place) -> None:
    """As a reload of the code, a notebook and a test do: the newer function counts."""
    older = Definitions.merge(
        place.build(orders_transform("first")), place.build(orders_transform("second"))
    )
    newer = Definitions.merge(
        place.build(orders_transform("first")), place.build(orders_transform("second"))
    )
    for defs in (newer, older):
        Definitions.validate_loadable(defs)
        assert names(defs) == ["drain_orders", "watch_drains"]
    del older, newer, defs  # then one transform was renamed, and its dataset stayed
    renamed = Definitions.merge(
        place.build(orders_transform("first")), place.build(renamed_transform("second"))
    )
    Definitions.validate_loadable(renamed)
    place.put("a")
    with DagsterInstance.ephemeral() as instance:
        assert requested(tick(renamed, instance)) == {"apply_first", "apply_renamed"}


def test_an_older_build_that_is_still_in_use_does_not_come_between(place: Place) -> None:
    """As in a notebook: the transform writes another dataset now; the older cell is still there."""
    older = place.build(renamed_transform("first"), on_check=print)
    merged = Definitions.merge(
        place.build(renamed_transform("moved"), on_check=print),
        place.build(orders_transform("second"), on_check=print),
    )
    for defs in (merged, older):
        Definitions.validate_loadable(defs)
    place.put("a")
    with DagsterInstance.ephemeral() as instance:
        found = tick(merged, instance)
        assert requested(found) == {"apply_renamed", "apply_second"}, found.skip_message


def renamed_transform(dataset_id: str) -> Transform:
    from datazone_dagster import Dataset, Input, Output, Stream, transform
    from tests.dagster_glue.conftest import ITEM_COLUMNS, SOURCE

    return transform(
        name="renamed",
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"rows": Output(Dataset(dataset_id))},
    )(lambda changes: changes.select(*ITEM_COLUMNS))


def test_different_settings_are_named_before_dagster_refuses_the_merge(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    first = place.build(orders_transform("first"))
    with caplog.at_level(logging.WARNING):
        second = place.build(
            orders_transform("second"), drain_settings=DrainSettings(budget_seconds=3)
        )
    (warning,) = [one for one in caplog.messages if "disagree" in one]
    assert "'first'" in warning
    assert "'second'" in warning
    assert "budget_seconds=20.0" in warning
    assert "budget_seconds=3" in warning
    with pytest.raises(DagsterInvalidDefinitionError):
        Definitions.validate_loadable(Definitions.merge(first, second))


def test_other_lakehouses_share_nothing(place: Place, tmp_path: Path) -> None:
    first = place.build(orders_transform("first"))
    place.uri = str(tmp_path / "other")
    second = place.build(orders_transform("second"))
    for defs, name in ((first, "first"), (second, "second")):
        jobs = {one.name for one in defs.resolve_all_job_defs()}
        assert {one for one in jobs if one.startswith("apply_")} == {f"apply_{name}"}


def test_different_lakehouses_are_named_before_dagster_refuses_the_merge(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, uri = place.build(orders_transform("first")), place.uri
    place.uri = str(tmp_path / "other")
    with caplog.at_level(logging.WARNING):
        second = place.build(orders_transform("second"))
    differ = f"different Lakehouse: uri is {uri!r} and {place.uri!r}"
    assert any(differ in one for one in caplog.messages)
    with pytest.raises(DagsterInvariantViolationError, match="datazone_lakehouse"):
        Definitions.merge(first, second)
