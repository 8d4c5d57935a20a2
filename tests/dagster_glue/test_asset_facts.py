"""What an asset's page says before anything ran: owners, tags, groups, and where the code is."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AnchorBasedFilePathMapping,
    AssetKey,
    AssetsDefinition,
    CodeReferencesMetadataValue,
    Definitions,
    LocalFileCodeReference,
    UrlCodeReference,
    link_code_references_to_git,
)

from datazone_dagster import Dataset, Input, Output, Stream, build_definitions, transform
from datazone_dagster.dagster_glue.assets.code_references import CODE_REFERENCES
from datazone_dagster.errors import DefinitionError
from datazone_dagster.sources import DynamoDBSource

LOG, DATASET = AssetKey(["dynamodb", "orders"]), AssetKey(["rows"])


def timed(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return function(*arguments)

    return call


def rows_of(orders: Any) -> Any:
    return orders.select("eventID")


def defs_of(
    function: Callable[..., Any], dataset: Dataset | None = None, **source: Any
) -> Definitions:
    mapping = {"orders": Input(Stream(source=DynamoDBSource("orders", **source)))}
    found = transform(
        input_mapping=mapping, output_mapping={"r": Output(dataset or Dataset("rows"))}
    )
    return build_definitions([found(function)])


def test_a_change_log_has_what_its_source_says() -> None:
    defs = defs_of(
        rows_of,
        description="Orders of the shop.",
        owners=["team:shop", "ann@example.com"],
        tags={"pii": "yes", "live": ""},
        group_name="shop",
    )
    graph = defs.resolve_asset_graph()
    log = graph.get(LOG)
    assert log.description == "Orders of the shop."
    assert log.owners == ["team:shop", "ann@example.com"]
    assert (log.tags["pii"], log.tags["live"]) == ("yes", "")
    assert log.kinds == {"dynamodb", "deltalake"}
    assert log.group_name == graph.get(DATASET).group_name == "shop"  # one group, as by default
    assert graph.get(DATASET).owners == []


def test_a_dataset_in_a_group_of_its_own_stays_there() -> None:
    defs = defs_of(rows_of, Dataset("rows", group_name="marts"), group_name="shop")
    assert defs.resolve_asset_graph().get(DATASET).group_name == "marts"


def test_a_change_log_names_its_sensor() -> None:
    assert "`drain_orders`" in (defs_of(rows_of).resolve_asset_graph().get(LOG).description or "")


@pytest.mark.parametrize(
    "wrong", [{"owners": "ann"}, {"tags": "a b"}, {"group_name": "a-b"}, {"description": " "}]
)
def test_what_dagster_would_refuse_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=rf"DynamoDBSource\('orders'\).*{next(iter(wrong))}"):
        DynamoDBSource("orders", **wrong)


def reference(defs: Definitions) -> object:
    return only(defs.resolve_asset_graph().get(DATASET).metadata)


def only(metadata: Mapping[str, Any]) -> object:
    value = metadata[CODE_REFERENCES]
    assert isinstance(value, CodeReferencesMetadataValue)
    [found] = value.code_references
    return found


@pytest.mark.parametrize("function", [rows_of, timed(rows_of)])
def test_a_page_leads_to_the_users_function(function: Callable[..., Any]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*CodeReference")
        found = reference(defs_of(function))
    assert isinstance(found, LocalFileCodeReference)
    assert (found.file_path, found.label) == (str(Path(__file__)), "rows_of")
    assert found.line_number == inspect.getsourcelines(rows_of)[1]


def test_the_link_can_lead_to_a_repository() -> None:
    assets = link_code_references_to_git(
        assets_defs=list(defs_of(rows_of).assets or []),
        git_url="https://github.com/acme/shop",
        git_branch="main",
        file_path_mapping=AnchorBasedFilePathMapping(
            local_file_anchor=Path(__file__), file_anchor_path_in_repository="assets/shop.py"
        ),
    )
    [asset] = [one for one in assets if isinstance(one, AssetsDefinition)]
    found = only(asset.metadata_by_key[DATASET])
    assert isinstance(found, UrlCodeReference)
    assert found.url.startswith("https://github.com/acme/shop/tree/main/assets/shop.py#L")


def test_a_function_of_a_shell_has_no_file() -> None:
    scope: dict[str, Any] = {}
    exec("def typed(orders):\n    return orders.select('eventID')", scope)
    metadata = defs_of(scope["typed"]).resolve_asset_graph().get(DATASET).metadata
    assert CODE_REFERENCES not in metadata
