"""Backlog in the change log to the merged dataset of the published example: one process.

    python -m benchmarks.apply [records]

The drain comes before and is not measured. Besides the default flow: the same function in append
mode and as a history (which need every change), with its frame read at once (so nothing can be
left out), and a CPU profile per stage.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from benchmarks.drain import drain_all
from benchmarks.measure import (
    Measured,
    Stages,
    command_line,
    in_child,
    markdown,
    measuring,
    repeated,
    write,
)
from benchmarks.orders import DATASET, SOURCE, process_orders_stream
from benchmarks.pages import Workload, generated
from benchmarks.stream import PagesStream
from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.apply import change_scan
from datazone_dagster.apply.change_scan import ChangeScan
from datazone_dagster.apply.chunk_size import ApplySettings
from datazone_dagster.apply.full_scan import FullChunk
from datazone_dagster.apply.function import Function
from datazone_dagster.apply.joined_chunks import JoinedChunks
from datazone_dagster.apply.maintain_dataset import MaintenanceInRun
from datazone_dagster.apply.prepare import Preparation
from datazone_dagster.apply.run import ApplyRun
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.row_groups import RowGroups
from datazone_dagster.dataset.dataset_table import DatasetTable
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform
from datazone_dagster.source.wire import parse_page

COLLAPSED = "apply, latest changes only"
APPEND = "apply, append mode"
HISTORY = "apply, history"
ITEMS = "apply, items() in append mode"
TYPED = "apply, items() with types"
FULL = "apply, full chunks"
DRAIN = "drain"
DEFAULT_RECORDS = 1_000_000


@transform(
    input_mapping={"orders_stream": Input(Stream(source=SOURCE))},
    output_mapping={DATASET: Output(Dataset(id=DATASET))},
)
def full_chunks(orders_stream: Frame) -> Frame:
    """Published example that reads its first row first: then nothing can be left out."""
    orders_stream.sql("select eventID from changes limit 1").arrow()
    return process_orders_stream(orders_stream)


def all_items(orders_stream: Frame) -> Frame:
    return orders_stream.items()


def typed_items(orders_stream: Frame) -> Frame:
    lines = "list<struct<sku:string,qty:long>>"
    return orders_stream.items(
        types={
            "items": lines,
            "address": "struct<city:string,zip:string>",
            "updatedAt": "timestamp",
            "orderTotal": "decimal(18,2)",
        }
    )


def _in_mode(
    mode: Literal["merge", "append", "history"], use: Callable[[Frame], object]
) -> Transform:
    return transform(
        name=mode,
        input_mapping={"orders_stream": Input(Stream(source=SOURCE))},
        output_mapping={DATASET: Output(Dataset(id=DATASET, mode=mode))},
    )(use)


FLOWS: dict[str, Transform] = {
    COLLAPSED: process_orders_stream,
    APPEND: _in_mode("append", process_orders_stream.function),
    HISTORY: _in_mode("history", process_orders_stream.function),
    ITEMS: _in_mode("append", all_items),
    TYPED: _in_mode("merge", typed_items),
    FULL: full_chunks,
}


_SCAN, _PARQUET = "read keys and versions", "read Parquet"
_FUNCTION, _MERGE = "parse images, run the function", "merge and commit"

STAGES: tuple[tuple[object, str, str], ...] = (
    (ApplyRun, "__init__", "open the tables"),
    (ApplyRun, "_apply_chunk", "other steps of a chunk"),
    (ChangeLog, "open", "open the tables"),
    (Preparation, "next_chunk", "prepare chunks"),
    (FullChunk, "changes_with", _PARQUET),
    (RowGroups, "read", _PARQUET),
    (RowGroups, "_inside", _PARQUET),
    (ChangeScan, "run", _SCAN),
    (ChangeScan, "changes", _SCAN),
    (change_scan, "only_latest", "collapse keys"),
    (JoinedChunks, "_collapse", "collapse keys"),
    (Frame, "rows_of", _FUNCTION),
    (Function, "returned", _FUNCTION),
    (Function, "read", _FUNCTION),
    (Function, "evaluate", _FUNCTION),
    (DatasetTable, "apply", _MERGE),
    (MaintenanceInRun, "done", "maintain the tables"),
)
"""Steps of a run and the stage that each counts for, without the other steps within it."""


def child(variant: str, folder: Path, lake: Path) -> Measured:
    measured = Measured(variant)
    if variant == DRAIN:
        drain_all(PagesStream(folder, parse_page), Layout(str(lake)))
        return measured
    stream = PagesStream(folder, parse_page)
    measured.records, measured.body_bytes = stream.records, stream.body_bytes
    with Stages(measured, of_process=True) as stages:
        for owner, name, stage in STAGES:
            stages.wrap(owner, name, stage, alone=True)
        with measuring(measured):
            applied = apply_transform(FLOWS[variant], Layout(str(lake)), settings=ApplySettings())[
                DATASET
            ]
    if applied.records != measured.records:
        raise SystemExit(f"{applied.records} of {measured.records} changes were applied")
    measured.notes |= {"chunks": applied.chunks, "rows": applied.row_count, "stages_add_up": 1}
    return measured


def run(variant: str, folder: Path) -> Measured:
    """Run one variant in a process of its own, on a change log that another process drained."""
    with tempfile.TemporaryDirectory(prefix="bench-apply-") as lake:
        in_child("benchmarks.apply", DRAIN, str(folder), lake)
        return in_child("benchmarks.apply", variant, str(folder), lake)


def main(results: Path, pages: Path, records: int = DEFAULT_RECORDS) -> list[Measured]:
    folder = generated(Workload(records=records), pages)
    smaller = generated(Workload(records=max(records // 4, 1000)), pages)
    rows = [
        repeated(2, lambda: run(COLLAPSED, folder)),
        repeated(2, lambda: run(TYPED, folder)),
        *(
            repeated(2, partial(run, variant, smaller))
            for variant in (APPEND, HISTORY, ITEMS, FULL)
        ),
    ]
    write(results, "apply", rows, markdown("Change log to merged dataset", rows, FULL))
    return rows


if __name__ == "__main__":
    command_line(child, main, DEFAULT_RECORDS)
