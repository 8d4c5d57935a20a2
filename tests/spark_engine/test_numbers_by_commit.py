"""A change log whose files have no numbers of batches is not read by Spark."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from datazone_dagster import Dataset, Input, Output, SparkEngine, Stream, transform
from datazone_dagster.drain import DrainSettings, drain_tick
from datazone_dagster.model.drain_part import SetPart, StreamPart
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.shard_set import shard_sets
from datazone_dagster.pipeline.applying import apply_transform
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream

RUNS = DynamoDBSource("orders", "eu-west-1", start="trim_horizon", drain="runs", drain_workers=1)
TICKS = replace(RUNS, drain="tick", drain_workers=None)
NOBODY = SparkEngine(remote="sc://127.0.0.1:1")


def test_batches_without_numbers_are_applied_without_spark(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layout, stream = Layout(str(tmp_path)), ScriptedStream()
    for at in range(5):
        stream.put({"id": {"S": str(at)}})
    (share,) = shard_sets(1)
    for part in (StreamPart(1), SetPart(share)):
        drain_tick(RUNS, stream, layout, settings=DrainSettings(), part=part)
    stream.put({"id": {"S": "5"}})
    drain_tick(TICKS, stream, layout)

    @transform(
        input_mapping={"changes": Input(Stream(source=TICKS))},
        output_mapping={"orders": Output(Dataset("orders", engine=NOBODY))},
    )
    def orders(changes: Any) -> Any:
        return changes.select("dynamodb.NewImage.id.S as id")

    with caplog.at_level(logging.WARNING):
        apply_transform(orders, layout)
    rows = DeltaTable(layout.dataset("orders")).to_pyarrow_table(columns=["id"])
    assert sorted(rows["id"].to_pylist()) == list("012345")
    assert "without Spark" in caplog.text
