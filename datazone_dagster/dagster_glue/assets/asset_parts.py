"""What Dagster's contexts say of an asset: its metadata, its table, the partitions of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dagster import (
    DagsterInvariantViolationError,
    InputContext,
    MetadataValue,
    MultiPartitionsDefinition,
    OutputContext,
    PartitionsDefinition,
    TimeWindowPartitionsDefinition,
)

from datazone_dagster.dagster_glue.names import DATASET_METADATA
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.asset_write import AssetWrite, asset_write
from datazone_dagster.model.layout import asset_table_name
from datazone_dagster.model.partition_slice import PartitionSlice, PartitionValue, partition_slice

Context = InputContext | OutputContext


def table_name(context: Context, metadata: Mapping[str, Any] | None = None) -> str:
    """Return the name of the table of an asset; `metadata` is that of the asset's definition.

    Raises:
        DefinitionError: It is not an asset, or its key can't name a table.
    """
    if not context.has_asset_key:
        raise DefinitionError(
            f"The output {context.name!r} is not an asset, so it has no table.",
            hint="Give this output another io_manager_key, or make it an asset.",
        )
    dataset_id = _plain((metadata or {}).get(DATASET_METADATA))
    return dataset_id or asset_table_name(context.asset_key.path)


def write_of(context: Context, metadata: Mapping[str, Any] | None) -> AssetWrite:
    """Return what the metadata of an asset's definition asks for.

    Raises:
        DefinitionError: An option is wrong.
    """
    return asset_write(
        {name: _plain(value) for name, value in (metadata or {}).items()},
        asset=context.asset_key.to_user_string(),
        dimensions=_dimensions(context.asset_partitions_def)
        if context.has_asset_partitions
        else None,
    )


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, MetadataValue) else value


def _dimensions(definition: PartitionsDefinition[Any]) -> tuple[str, ...]:
    if isinstance(definition, MultiPartitionsDefinition):
        return tuple(one.name for one in definition.partitions_defs)
    return ("",)


def partitions_of(context: Context, write: AssetWrite) -> list[tuple[str, PartitionSlice]]:
    """Return each partition of the run, or of the input, with its slice of the table."""
    columns = [column for _, column in write.partition_columns]
    return [(key, partition_slice(columns, [(key, values)])) for key, values in _values(context)]


def slice_of(context: Context, write: AssetWrite) -> PartitionSlice | None:
    """Return the slice of all partitions of the run, or of the input; None if it has none."""
    if not context.has_asset_partitions:
        return None
    return partition_slice([column for _, column in write.partition_columns], _values(context))


def _values(context: Context) -> list[tuple[str, Sequence[PartitionValue]]]:
    definition = context.asset_partitions_def
    return [(key, _values_of(definition, key)) for key in context.asset_partition_keys]


def _values_of(definition: PartitionsDefinition[Any], key: str) -> list[PartitionValue]:
    if isinstance(definition, MultiPartitionsDefinition):
        by_name = definition.get_partition_key_from_str(key).keys_by_dimension
        return [
            value
            for one in definition.partitions_defs
            for value in _values_of(one.partitions_def, by_name[one.name])
        ]
    if isinstance(definition, TimeWindowPartitionsDefinition):
        window = definition.time_window_for_partition_key(key)
        return [PartitionValue(key, window.start, window.end)]
    return [PartitionValue(key)]


def step_of(context: OutputContext) -> str | None:
    """Return the identity of a step and its run; None outside a run."""
    try:
        return f"{context.run_id}/{context.step_key}"
    except DagsterInvariantViolationError:
        return None
