"""Requests of runs and maintenance on an object store, in a process that has run before."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import datetime, timezone
from typing import Any

import pytest

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.assets.lazy_apply import LazyApply
from datazone_dagster.dataset.dataset_table import KIND
from datazone_dagster.delta.log_files import entry_path
from datazone_dagster.delta.log_upkeep import make_checkpoint
from datazone_dagster.delta.table import opened
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import (
    ApplySettings,
    MaintenanceSettings,
    SnapshotSettings,
    drain_once,
    maintain_dataset,
    read_dataset,
    utc_now,
)
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream
from tests.store.proxy import Counts, Proxy

SOURCE = DynamoDBSource("orders", start="trim_horizon")
DATASET = Dataset("d", deletion_vectors=True)
NO_MAINTENANCE = MaintenanceSettings(
    join_files=1000, hidden_share=1.0, checkpoint_commits=1_000_000
)
EVERYTHING = ApplySettings(maintenance=NO_MAINTENANCE)
EVERY_BATCH = ApplySettings(chunk_bytes=1, maintenance=NO_MAINTENANCE)
FILES, ITEMS = 10, 40


@transform(
    input_mapping={"changes": Input(Stream(source=SOURCE))},
    output_mapping={"d": Output(DATASET)},
)
def flow(changes: Any) -> object:
    return changes.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.n.N::bigint as n")


class World:
    """A dataset with ten files, each with rows that every further merge changes."""

    def __init__(self, layout: Layout, commits: int) -> None:
        self.layout = layout
        self.stream = ScriptedStream("orders")
        self.number = 0
        for file in range(FILES):
            self.land(range(file * ITEMS, (file + 1) * ITEMS))
            self.run()
        if commits > 1:
            self.pad(commits)
        self.change()
        self.run()

    def land(self, keys: Sequence[int]) -> None:
        self.number += 1
        for key in keys:
            self.stream.put({"id": {"S": f"k{key:05d}"}, "n": {"N": str(self.number)}})
        drain_once(SOURCE, self.stream, self.layout)

    def change(self) -> None:
        """Land changes of a row of each file."""
        self.land([file * ITEMS + self.number % ITEMS for file in range(FILES)])

    def run(self, settings: ApplySettings = EVERYTHING) -> int:
        """Do what a run of Dagster does, with its checks; return the number of chunks."""
        lazy = LazyApply(
            flow,
            AssetKeys(),
            settings,
            lambda: None,
            lambda _: None,
            lambda _: (),
            heartbeats=nullcontext,
            table_client=lambda: None,  # type: ignore[arg-type,return-value]  # no scan
            snapshot_settings=SnapshotSettings(),
            preview=False,
            clock=utc_now,
        )
        logger = logging.getLogger("budgets")
        return lazy.to_dataset("d", self.layout, logger).report.chunks

    def pad(self, commits: int) -> None:
        """Give the dataset's table many commits, and a checkpoint close to the last one."""
        table = opened(self.layout.dataset("d"), self.layout.storage_options, KIND)
        assert table is not None
        first = table.at.version + 1
        numbers = range(first, commits)
        with ThreadPoolExecutor(16) as pool:
            list(
                pool.map(
                    lambda n: table.at.store.put_if_absent(entry_path(n), b'{"commitInfo":{}}'),
                    numbers,
                )
            )
        table.kept.forget()
        table.refresh()
        assert table.at.version == commits - 1
        make_checkpoint(table.kept, table.at)


def shown(counts: Counts) -> list[str]:
    return [f"{one.method} {one.path}" for one in counts.requests]


@pytest.mark.parametrize("commits", [1, pytest.param(2000, marks=pytest.mark.store)])
def test_requests_of_runs_and_maintenance(s3_lakehouse: Layout, proxy: Proxy, commits: int) -> None:
    world = World(s3_lakehouse, commits)
    check_runs(world, proxy)
    before = read_dataset(world.layout, "d").sort_by("id")
    check_maintenance(world, proxy)
    assert read_dataset(world.layout, "d").sort_by("id").equals(before)


def check_runs(world: World, proxy: Proxy) -> None:
    """Merges into ten files with deletion vectors: one, and three in one run."""
    world.change()
    with proxy.counted() as one_merge:
        assert world.run() == 1
    assert len(one_merge) <= 30, shown(one_merge)
    for _ in range(3):
        world.change()
    with proxy.counted() as three_merges:
        assert world.run(EVERY_BATCH) == 3
    assert len(three_merges) <= len(one_merge) + 2 * 12, shown(three_merges)
    rows = read_dataset(world.layout, "d").to_pylist()
    assert len(rows) == FILES * ITEMS
    assert sum(row["n"] > FILES for row in rows) == 5 * FILES


def check_maintenance(world: World, proxy: Proxy) -> None:
    """All rewrites in one commit; then the replaced files, after the retention, in bulk."""
    joins = MaintenanceSettings(join_files=2, checkpoint_commits=1_000_000)
    with proxy.counted() as counts:
        report = maintain_dataset(DATASET, world.layout, settings=joins)
    assert report is not None
    assert report.files_joined >= FILES
    assert len(counts) <= 2 * report.files_joined, shown(counts)
    assert counts.by_kind["PUT", "log entry"] == 1
    cleans = MaintenanceSettings(checkpoint_commits=0)
    later = datetime(2100, 1, 1, tzinfo=timezone.utc)
    with proxy.counted() as counts:
        report = maintain_dataset(DATASET, world.layout, settings=cleans, clock=lambda: later)
    assert report is not None
    assert report.files_deleted > FILES
    assert counts.by_method["DELETE"] == 0
    assert counts.by_kind["POST", "delete many"] == 1
