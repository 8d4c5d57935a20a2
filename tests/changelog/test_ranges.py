"""Size of a range of batches in the change log, by the statistics of its files."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from datazone_dagster.changelog.ranges import files_between, stored_bytes
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.table_file import DataFile


def file(first: int, last: int, size_bytes: int) -> DataFile:
    return DataFile(
        path=f"{first}-{last}.parquet",
        size_bytes=size_bytes,
        num_records=1,
        minimum={Log.BATCH: first},
        maximum={Log.BATCH: last},
        partition={},
        written_at=datetime(2030, 1, 1, tzinfo=timezone.utc),
    )


FILES = [file(1, 64, 6400), file(65, 65, 30), file(66, 66, 50)]


@pytest.mark.parametrize(
    ("after", "through", "files", "size_bytes"),
    [
        pytest.param(0, 66, 3, 6480, id="all"),
        pytest.param(64, 66, 2, 80, id="small files"),
        pytest.param(60, 65, 2, 430, id="a share of the joined one"),
        pytest.param(30, 40, 1, 1000, id="within one file"),
        pytest.param(66, 66, 0, 0, id="nothing"),
    ],
)
def test_a_range(after: int, through: int, files: int, size_bytes: int) -> None:
    assert len(files_between(FILES, after, through)) == files
    assert stored_bytes(FILES, after, through) == size_bytes
