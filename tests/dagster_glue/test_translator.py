"""How assets look: `build_definitions(translator=...)`."""

from __future__ import annotations

from typing import Any

import pytest
from dagster import AssetKey, AssetSpec

from datazone_dagster import DagsterDatazoneTranslator, DatazoneAssetData, build_definitions
from datazone_dagster.errors import DefinitionError
from tests.dagster_glue.conftest import MakeWorld, orders_transform


class OfTeam(DagsterDatazoneTranslator):
    def get_asset_spec(self, data: DatazoneAssetData) -> AssetSpec:
        spec = super().get_asset_spec(data)
        kind = "log" if data.dataset is None else data.dataset.mode
        return spec.replace_attributes(
            group_name="shop",
            owners=["team:shop"],
            tags={**spec.tags, "kind": kind},
            description=f"{data.source.table_name}: {spec.description}",
        )


def test_datasets_and_the_change_log_look_as_the_translator_says(make_world: MakeWorld) -> None:
    world = make_world(orders_transform(tags=["tier=1"]), translator=OfTeam())
    graph = world.defs.resolve_asset_graph()
    dataset, log = graph.get(AssetKey("orders")), graph.get(AssetKey(["dynamodb", "orders"]))
    assert (dataset.group_name, log.group_name) == ("shop", "shop")
    assert (dataset.owners, log.owners) == (["team:shop"], ["team:shop"])
    assert dataset.tags.items() >= {"tier": "1", "kind": "merge"}.items()
    assert log.tags["kind"] == "log"
    assert dataset.description == "orders: Orders as they are now."
    world.put("a")
    world.tick()
    assert world.run("apply_orders").success
    assert world.rows() == {"a": "placed"}


def test_calls_that_share_a_change_log_and_disagree_about_it_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept = build_definitions(orders_transform("one"))
    other = build_definitions(orders_transform("two"), translator=OfTeam())
    assert "disagree about drain_orders" in caplog.text
    assert "asset of the change log" in caplog.text
    assert kept.sensors != other.sensors


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (lambda data: None, "returned NoneType for"),
        (lambda data: data.default_spec.replace_attributes(key="x"), "changes the key"),
        (lambda data: data.default_spec.replace_attributes(deps=["x"]), "or the dependencies"),
    ],
)
def test_what_can_not_be_changed_is_refused(returned: Any, words: str) -> None:
    class Wrong(DagsterDatazoneTranslator):
        def get_asset_spec(self, data: DatazoneAssetData) -> AssetSpec:
            found: AssetSpec = returned(data)
            return found

    with pytest.raises(DefinitionError, match=words):
        build_definitions(orders_transform(), translator=Wrong())


def test_something_else_is_refused() -> None:
    wrong: Any = OfTeam
    with pytest.raises(DefinitionError, match="translator=") as refused:
        build_definitions(orders_transform(), translator=wrong)
    assert refused.value.hint == "Give a datazone_dagster.DagsterDatazoneTranslator."
