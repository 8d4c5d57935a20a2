"""How assets look in Dagster: one method that projects override."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dagster import AssetExecutionContext, AssetSpec

from datazone_dagster.api import Dataset, DynamoDBSource, Transform
from datazone_dagster.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class DatazoneAssetData:
    """What `DagsterDatazoneTranslator.get_asset_spec` gets to know about an asset.

    Args:
        source: The source.
        default_spec: Spec of the asset as the library makes it.
        transform: The transform that writes the dataset; None for a change log.
        dataset: The dataset; None for a change log.
    """

    source: DynamoDBSource
    default_spec: AssetSpec
    transform: Transform | None = None
    dataset: Dataset | None = None


class DagsterDatazoneTranslator:
    """Decides how datasets and change logs look in Dagster: group, owners, tags, description, more.

    Subclass it, override `get_asset_spec`, and pass an instance to `build_definitions`. Keys and
    dependencies are the library's: sensors, checks and commands find the assets by them. The keys
    have the `key_prefix` of `build_definitions` already.

    Example:
        ```python
        class OfTeam(DagsterDatazoneTranslator):
            def get_asset_spec(self, data):
                spec = super().get_asset_spec(data)
                return spec.replace_attributes(group_name="shop", owners=["team:shop"])
        ```
    """

    def get_asset_spec(self, data: DatazoneAssetData) -> AssetSpec:
        """Return the spec of a dataset or of a change log: `data.default_spec`, changed or not."""
        return data.default_spec


class ExecutingTranslator(DagsterDatazoneTranslator):
    """A translator that also stands around the execution of a transform: a component's.

    Args:
        does_more: Whether `execute` does more than to yield what the run reports. Such a transform
            shares no runs: what is around it must be around all that is applied.
    """

    def __init__(self, *, does_more: bool) -> None:
        self.does_more = does_more

    def execute(
        self, context: AssetExecutionContext, transform: Transform, events: Iterator[Any]
    ) -> Iterator[Any]:
        """Yield what a run reports."""
        raise NotImplementedError


def translated(translator: DagsterDatazoneTranslator, data: DatazoneAssetData) -> AssetSpec:
    """Return the spec that a translator makes of an asset.

    Raises:
        DefinitionError: It is no spec, or has another key or other dependencies.
    """
    default, name = data.default_spec, type(translator).__name__
    spec = translator.get_asset_spec(data)
    if not isinstance(spec, AssetSpec):
        raise DefinitionError(
            f"{name}.get_asset_spec returned {type(spec).__name__} for "
            f"{default.key.to_user_string()}.",
            hint="Return data.default_spec, or data.default_spec.replace_attributes(...).",
        )
    if spec.key != default.key or list(spec.deps) != list(default.deps):
        raise DefinitionError(
            f"{name}.get_asset_spec changes the key or the dependencies of "
            f"{default.key.to_user_string()}.",
            hint="Sensors, checks and commands find an asset by its key. Name the dataset with "
            "Dataset(id), the source with DynamoDBSource(name=...); "
            "build_definitions(key_prefix=...) puts parts before all keys.",
        )
    return spec
