"""A run beside a large quarantine reads reasons and keys of its records, not their images."""

from __future__ import annotations

import random
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa

from datazone_dagster.dataset.quarantine import KIND, SCHEMA, Quarantine
from datazone_dagster.delta import create_table
from datazone_dagster.delta.write_table import append_rows
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.quarantine_policy import FUNCTION_FAILED

GROWN_BYTES = 170 << 20
"""Libraries and decoded columns. The images alone have 280 MB."""

LOOKS = """
import sys
from datazone_dagster.apply.append_order import waiting_keys
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.model.layout import Layout
from datazone_dagster.process.memory import peak_bytes, resident_bytes
quarantine = Quarantine(Layout(sys.argv[1]), "out")
columns = ("keys", "version", "reason")
before = resident_bytes()
keys = waiting_keys(quarantine.waiting(through_batch=9, columns=columns))
oldest = quarantine.oldest_waiting()
print(len(keys), oldest is not None, peak_bytes() - before)
"""


def fill(layout: Layout, records: int, image_bytes: int) -> None:
    table = create_table(Quarantine(layout, "out").uri, {}, KIND, SCHEMA)
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    for start in range(0, records, 50):
        rows = [
            {
                "record_id": f"r{number}",
                "batch": 1,
                "keys": f'{{"id":{{"S":"k{number}"}}}}',
                "version": f"1{number:040}",
                "new_image": random.Random(number).randbytes(image_bytes // 2).hex(),
                "reason": f"{FUNCTION_FAILED}ValueError",
                "first_seen_at": now,
                "last_seen_at": now,
            }
            for number in range(start, start + 50)
        ]
        append_rows(table, pa.Table.from_pylist(rows, SCHEMA))


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
