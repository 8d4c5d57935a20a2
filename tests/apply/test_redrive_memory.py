"""A redrive of a quarantine larger than its memory budget stays within the budget."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.size_policy import APPLY_BUDGET_BYTES
from datazone_dagster.pipeline import apply_transform, read_dataset
from tests.apply.memory_child import WAYS
from tests.apply.test_large_items import ITEM_BYTES, change
from tests.dataset.test_quarantine_memory import records

RECORDS = 400


def quarantined(lake: Path, way: str) -> None:
    """Fill the quarantine of a dataset that has passed the records' batch with 156 MB."""
    layout = Layout(str(lake))
    ChangeLog(layout, "orders").open_or_create().append(
        1, [ShardRecords("arn", "shard", None, [change(RECORDS, {})])]
    )
    apply_transform(WAYS[way], layout)
    quarantine = Quarantine(layout, way)
    for start in range(0, RECORDS, 50):
        numbers = range(start, start + 50)
        rows = records(numbers, ITEM_BYTES)
        images = [
            json.dumps({"id": {"S": f"k{number}"}, "note": {"S": image}})
            for number, image in zip(numbers, rows["new_image"].to_pylist(), strict=True)
        ]
        at = rows.column_names.index("new_image")
        rows = rows.set_column(at, rows.schema.field("new_image"), [images])
        quarantine.put(rows, datetime(2026, 1, 1, tzinfo=timezone.utc))


@pytest.mark.parametrize("way", ["images", pytest.param("append", marks=pytest.mark.faults)])
def test_a_redrive_takes_the_images_of_one_portion_into_memory(tmp_path: Path, way: str) -> None:
    quarantined(tmp_path, way)
    command = [sys.executable, "-m", "tests.apply.redrive_child"]
    command += [str(tmp_path), way, str(APPLY_BUDGET_BYTES)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    redriven, waiting, peak_bytes = map(int, output.split())
    assert (redriven, waiting) == (RECORDS, 0)
    assert peak_bytes < APPLY_BUDGET_BYTES
    assert len(read_dataset(Layout(str(tmp_path)), way)) == RECORDS + 1
