"""A file as one file per bucket: the same rows in the same order, whatever fits in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from datazone_dagster.delta.read_file import live_batches
from datazone_dagster.model.key_bucket import key_buckets
from datazone_dagster.rows.bucket_files import TAG, tag_of
from datazone_dagster.rows.key_hash import are_of, slots_of_keys
from datazone_dagster.rows.split_file import split_file
from tests.tables import table_at

ROWS = pa.table(
    {
        "_dz_key": [f"k{number % 700}" for number in range(2000)],
        "_dz_version": [f"{number:046d}" for number in range(2000)],
        "text": ["x" * (number % 50) for number in range(2000)],
    }
)


@pytest.mark.parametrize(
    ("held_bytes", "most_readings"), [(1 << 20, 1), (60_000, 4), (20_000, 20), (0, 32)]
)
def test_each_bucket_gets_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_bytes: int, most_readings: int
) -> None:
    write_deltalake(str(tmp_path), ROWS)
    snapshot = table_at(DeltaTable(str(tmp_path))).at
    readings = Counter[str]()

    def counted(snapshot: Any, file: Any, *given: Any) -> Iterator[pa.RecordBatch]:
        readings[file.path] += 1
        return live_batches(snapshot, file, *given)

    monkeypatch.setattr("datazone_dagster.rows.split_file.live_batches", counted)
    (file,) = snapshot.files
    adds = split_file(snapshot, file, 16, held_bytes)
    assert readings[file.path] <= most_readings
    assert [add["tags"][TAG] for add in adds] == [tag_of(one) for one in key_buckets(16)]
    slots = slots_of_keys(ROWS["_dz_key"].combine_chunks())
    for add, bucket in zip(adds, key_buckets(16), strict=True):
        assert pq.read_table(tmp_path / add["path"]).equals(
            ROWS.filter(pa.array(are_of(bucket, slots)))
        )
