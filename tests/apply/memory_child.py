"""A run in a separate process, so that the peak memory is that of the run alone.

python -m tests.apply.memory_child <lake> <way> <memory budget>
"""

from __future__ import annotations

import sys
from typing import Literal

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.apply.chunk_size import ApplySettings
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform
from datazone_dagster.process.memory import peak_bytes
from datazone_dagster.sources import DynamoDBSource

STREAM = {"orders": Input(Stream(source=DynamoDBSource(table_name="orders", region="eu-west-1")))}


def output(
    name: str,
    mode: Literal["merge", "append", "history"] = "merge",
    deletes: Literal["hard", "soft"] = "hard",
) -> dict[str, Output]:
    return {"orders": Output(Dataset(id=name, mode=mode, deletes=deletes))}


@transform(input_mapping=STREAM, output_mapping=output("row_wise"))
def row_wise(orders: Frame) -> Frame:
    return orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.total.N as total")


@transform(input_mapping=STREAM, output_mapping=output("images"))
def images(orders: Frame) -> Frame:
    return orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage as item")


@transform(input_mapping=STREAM, output_mapping=output("full"))
def full(orders: Frame) -> Frame:
    assert orders.arrow().num_rows
    return images.function(orders)


@transform(input_mapping=STREAM, output_mapping=output("append", "append"))
def append(orders: Frame) -> Frame:
    return images.function(orders)


@transform(input_mapping=STREAM, output_mapping=output("history", "history"))
def history(orders: Frame) -> Frame:
    return row_wise.function(orders)


@transform(input_mapping=STREAM, output_mapping=output("items", "append"))
def items(orders: Frame) -> Frame:
    return orders.items()


@transform(input_mapping=STREAM, output_mapping=output("items_merge"))
def items_merge(orders: Frame) -> Frame:
    return orders.items()


@transform(input_mapping=STREAM, output_mapping=output("items_soft", deletes="soft"))
def items_soft(orders: Frame) -> Frame:
    return orders.items()


@transform(input_mapping=STREAM, output_mapping=output("items_history", "history"))
def items_history(orders: Frame) -> Frame:
    return orders.items()


@transform(input_mapping=STREAM, output_mapping=output("unnested"))
def unnested(orders: Frame) -> Frame:
    return orders.select("unnest(from_json(dynamodb.NewImage.ls.L, '[\"json\"]')) as entry")


@transform(input_mapping=STREAM, output_mapping=output("unnested_append", "append"))
def unnested_append(orders: Frame) -> Frame:
    return unnested.function(orders)


USUAL_MAPPED_BYTES = 144 << 20
"""Pages of libraries in memory on Debian 12. Newer systems map about 60 MiB more of the same files
(measured, forky); the kernel drops such pages when memory is short."""


def mapped_file_bytes() -> int:
    with open("/proc/self/status", "rb") as status:
        return next(int(line.split()[1]) << 10 for line in status if line[:8] == b"RssFile:")


WAYS = {
    one.name: one
    for one in (
        row_wise,
        images,
        full,
        append,
        history,
        items,
        items_merge,
        items_soft,
        items_history,
        unnested,
        unnested_append,
    )
}
if __name__ == "__main__":
    lake, way, budget = sys.argv[1:]
    settings = ApplySettings(memory_budget=int(budget))
    report = apply_transform(WAYS[way], Layout(lake), settings=settings)[way]
    peak = peak_bytes() - max(0, mapped_file_bytes() - USUAL_MAPPED_BYTES)
    sys.stdout.write(f"{report.records} {report.row_count} {report.chunks} {peak}")
