"""Which small files of the change log become one. Pure.

A tick lands one small file. Files are joined in the order of their batches, so each still
covers a range of batches that no other file touches. First every 64 batches become one
file, and when a bucket is complete, its files become as few as their size allows: a file is
rewritten twice at most, and a year of ticks is a few thousand files.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from datazone_dagster.changelog.schema import BATCHES_PER_BUCKET, bucket_of
from datazone_dagster.delta import DataFile
from datazone_dagster.model.column_names import Log

BATCHES_PER_GROUP = 64
TARGET_BYTES = 32 << 20
"""Size of a joined file, compressed: a second of work, which a tick can spare."""


def files_to_join(files: Sequence[DataFile], head: int) -> list[DataFile]:
    """The next files to be replaced by one file with the same rows.

    Args:
        files: The live files, sorted by batch.
        head: The last batch.

    Returns:
        At least two files that are neighbours in one bucket, together at most
        `TARGET_BYTES`; none if nothing is to be done.
    """
    for bucket, group in groupby(files, key=lambda file: bucket_of(file.minimum[Log.BATCH])):
        of_bucket = list(group)
        if (bucket + 1) * BATCHES_PER_BUCKET <= head + 1:
            run = _first_run(of_bucket)
        else:
            run = next(filter(None, map(_first_run, _complete_groups(of_bucket, head))), [])
        if run:
            return run
    return []


def _complete_groups(files: Sequence[DataFile], head: int) -> list[list[DataFile]]:
    """Files of an open bucket by groups of batches that get no more batches."""

    def group_of(file: DataFile) -> int:
        return int(file.minimum[Log.BATCH]) // BATCHES_PER_GROUP

    return [
        list(group)
        for number, group in groupby(files, key=group_of)
        if (number + 1) * BATCHES_PER_GROUP <= head + 1
    ]


def _first_run(files: Sequence[DataFile]) -> list[DataFile]:
    """The first neighbours that fit one file together."""
    run: list[DataFile] = []
    for file in files:
        if run and sum(one.size_bytes for one in run) + file.size_bytes > TARGET_BYTES:
            if len(run) > 1:
                return run
            run = []
        run.append(file)
    return run if len(run) > 1 else []
