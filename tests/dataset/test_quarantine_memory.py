"""Quarantines larger than the memory budget: images pass through in parts, if at all."""

from __future__ import annotations

import random
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from datazone_dagster.dataset.quarantine import KIND, Quarantine
from datazone_dagster.dataset.quarantine_rows import SCHEMA, record_ids
from datazone_dagster.delta import create_table
from datazone_dagster.delta.write_table import append_rows
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.quarantine_policy import FUNCTION_FAILED
from datazone_dagster.model.version import row_version

LONG = pytest.mark.faults

GROWN_BYTES = 170 << 20
"""Libraries and decoded columns. The images alone have 280 MB."""

PARTS_BYTES = 450 << 20
"""Libraries and a few parts of 16 to 32 MB, in several forms. All records at once took 1,160 MB."""

LOOKS = """
import sys
from datazone_dagster import Dataset
from datazone_dagster.apply.append_order import waiting_keys
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.model.layout import Layout
from datazone_dagster.process.memory import peak_bytes, resident_bytes
quarantine = Quarantine(Layout(sys.argv[1]), "out")
columns = ("keys", "version", "reason")
before = resident_bytes()
dataset = Dataset("out", mode="append")
keys = waiting_keys(quarantine.waiting(through_batch=9, columns=columns), dataset)
oldest = quarantine.oldest_waiting()
print(len(keys), oldest is not None, peak_bytes() - before)
"""


CHANGES = """
import sys
from datetime import datetime, timezone
import pyarrow as pa
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.model.layout import Layout
from datazone_dagster.process.memory import peak_bytes, resident_bytes
layout, now = Layout(sys.argv[1]), datetime(2026, 1, 2, tzinfo=timezone.utc)
quarantine = Quarantine(layout, "out")
"""

PUTS = """
with pa.ipc.open_file(sys.argv[1] + "/changes.arrow") as file:
    changes = file.read_all()
before = resident_bytes()
new = quarantine.put(changes, now)
print(new, quarantine.waiting_count(), peak_bytes() - before)
"""

COPIES = """
before = resident_bytes()
quarantine.copy_from(Quarantine(Layout(sys.argv[1] + "/rebuilt"), "out"), now)
print(quarantine.waiting_count(), quarantine.waiting_count(), peak_bytes() - before)
"""


def records(numbers: range, image_bytes: int) -> pa.Table:
    seen_at = datetime(2026, 1, 1, tzinfo=timezone.utc)
    rows = [
        {
            "batch": 1,
            "stream_arn": "arn",
            "shard_id": "shard",
            "keys": f'{{"id":{{"S":"k{number}"}}}}',
            "version": row_version(1, 10**22 + number),
            "event_name": "INSERT",
            "event_time": seen_at,
            "new_image": random.Random(number).randbytes(image_bytes // 2).hex(),
            "size_bytes": image_bytes,
            "reason": f"{FUNCTION_FAILED}ValueError",
            "first_seen_at": seen_at,
            "last_seen_at": seen_at,
        }
        for number in numbers
    ]
    table = pa.Table.from_pylist(rows, SCHEMA)
    return table.set_column(0, SCHEMA.field("record_id"), record_ids(table))


def fill(layout: Layout, count: int, image_bytes: int) -> None:
    table = create_table(Quarantine(layout, "out").uri, {}, KIND, SCHEMA)
    for start in range(0, count, 50):
        append_rows(table, records(range(start, start + 50), image_bytes))


def grown(script: str, folder: Path) -> list[int]:
    """Return what a script printed in a process of its own: two counts and a growth in bytes."""
    command = [sys.executable, "-c", CHANGES + script, str(folder)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [int(word) for word in output.split()]


def write_changes(folder: Path, count: int, image_bytes: int) -> None:
    with pa.ipc.new_file(folder / "changes.arrow", SCHEMA) as file:
        for start in range(0, count, 50):
            file.write_table(records(range(start, start + 50), image_bytes))


def test_keys_and_times_of_a_large_quarantine_take_no_image_into_memory(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    fill(layout, 750, 390_000)
    command = [sys.executable, "-c", LOOKS, str(tmp_path)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    keys, has_oldest, grown_bytes = output.split()
    assert (keys, has_oldest) == ("750", "True")
    assert int(grown_bytes) < GROWN_BYTES


def test_only_the_columns_that_are_asked_for_come_back(tmp_path: Path) -> None:
    quarantine = Quarantine(Layout(str(tmp_path)), "out")
    assert quarantine.waiting(columns=("reason",)).column_names == ["reason"]
    fill(Layout(str(tmp_path)), 50, 10)
    assert quarantine.waiting(columns=("reason", "keys")).column_names == ["reason", "keys"]
    assert quarantine.waiting().column_names == SCHEMA.names


@pytest.mark.parametrize("stored", [50, pytest.param(0, marks=LONG), pytest.param(750, marks=LONG)])
def test_a_put_takes_a_part_of_the_images_into_memory_whether_it_is_the_first_or_repeated(
    tmp_path: Path, stored: int
) -> None:
    write_changes(tmp_path, 750, 390_000)
    if stored:
        fill(Layout(str(tmp_path)), stored, 390_000)
    new, waiting, grown_bytes = grown(PUTS, tmp_path)
    assert (new, waiting) == (750 - stored, 750)
    assert grown_bytes < PARTS_BYTES


@pytest.mark.parametrize("stored", [0, pytest.param(750, marks=LONG)])
def test_a_rebuild_copies_the_quarantine_in_parts(tmp_path: Path, stored: int) -> None:
    fill(Layout(f"{tmp_path}/rebuilt"), 750, 390_000)
    if stored:
        fill(Layout(str(tmp_path)), stored, 390_000)
    waiting, _, grown_bytes = grown(COPIES, tmp_path)
    assert waiting == 750
    assert grown_bytes < PARTS_BYTES
