"""Writes into the table of an asset, as the IO manager makes them, without Dagster."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from datazone_dagster.model.asset_write import asset_write
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.partition_slice import PartitionSlice
from datazone_dagster.model.protocols import Clock, utc_now
from datazone_dagster.model.table_written import TableWritten
from datazone_dagster.pipeline import open_dataset
from datazone_dagster.pipeline.table_calls import write_table

NAME = "customers"


def put(
    layout: Layout,
    returned: object,
    *,
    part: PartitionSlice | None = None,
    step: str | None = None,
    clock: Clock = utc_now,
    **metadata: Any,
) -> TableWritten:
    """Write a result as an asset with this metadata does."""
    write = asset_write(metadata, asset=NAME, dimensions=None if part is None else ("",))
    return write_table(layout, NAME, write, returned, part=part, step=step, clock=clock)


def rows(layout: Layout, *order: str) -> list[dict[str, Any]]:
    """Return the rows of the table, sorted by these columns, else by the first one."""
    table = open_dataset(layout, NAME).arrow()
    keys = order or table.column_names[:1]
    found: list[dict[str, Any]] = table.sort_by([(one, "ascending") for one in keys]).to_pylist()
    return found


def people(*pairs: tuple[int, str]) -> pa.Table:
    """Return rows of an id and a name."""
    return pa.table(
        {"id": pa.array([i for i, _ in pairs], pa.int64()), "name": [n for _, n in pairs]},
        schema=pa.schema([("id", pa.int64()), ("name", pa.string())]),
    )
