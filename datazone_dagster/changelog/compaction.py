"""Choice of the small files of the change log to join. Pure.

A tick lands one small file. Files are joined in the order of their batches, so each file still
covers a range of batches that no other file overlaps. Every 64 batches become one file first.
When a bucket is complete, its files become as few as their size allows. So a file is rewritten
twice at most, and a year of ticks is a few thousand files.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from datazone_dagster.changelog.schema import BATCHES_PER_BUCKET, bucket_of
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.table_file import DataFile

BATCHES_PER_GROUP = 64
TARGET_BYTES = 32 << 20
"""Size of a joined file, compressed: about a second of work, which a tick can spare."""


def files_to_join(files: Sequence[DataFile], head: int) -> list[DataFile]:
    """Return the next files to replace with one file of the same rows.

    Args:
        files: Live files, sorted by batch.
        head: Number of the last batch.

    Returns:
        At least two neighbouring files of one bucket, together at most `TARGET_BYTES`; an empty
        list if there is nothing to join.
    """
    for bucket, group in groupby(files, key=lambda file: bucket_of(file.minimum[Log.BATCH])):
        bucket_files = list(group)
        if (bucket + 1) * BATCHES_PER_BUCKET <= head + 1:
            run = _first_run(bucket_files)
        else:
            run = next(filter(None, map(_first_run, _complete_groups(bucket_files, head))), [])
        if run:
            return run
    return []


def _complete_groups(files: Sequence[DataFile], head: int) -> list[list[DataFile]]:
    """Return the files of an open bucket by groups of batches that get no more batches."""

    def group_of(file: DataFile) -> int:
        return int(file.minimum[Log.BATCH]) // BATCHES_PER_GROUP

    return [
        list(group)
        for number, group in groupby(files, key=group_of)
        if (number + 1) * BATCHES_PER_GROUP <= head + 1
    ]


def _first_run(files: Sequence[DataFile]) -> list[DataFile]:
    """Return the first neighbouring files that fit into one file together."""
    run: list[DataFile] = []
    for file in files:
        if run and sum(one.size_bytes for one in run) + file.size_bytes > TARGET_BYTES:
            if len(run) > 1:
                return run
            run = []
        run.append(file)
    return run if len(run) > 1 else []
