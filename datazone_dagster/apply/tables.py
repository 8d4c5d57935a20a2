"""The tables of a transform: its datasets to write, its lookups to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa

from datazone_dagster.api import Dataset, Transform
from datazone_dagster.dataset.dataset_table import DatasetTable
from datazone_dagster.dataset.facts import TableFacts
from datazone_dagster.dataset.read_dataset import DatasetReader, read
from datazone_dagster.errors import DefinitionError, TransformError
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, utc_now


def dataset_table(
    dataset: Dataset,
    transform: Transform,
    layout: Layout,
    memory_limit_bytes: int,
    bucket: KeyBucket = WHOLE,
    clock: Clock = utc_now,
) -> DatasetTable:
    """Return the table of a dataset, as its transform writes it, with DuckDB's memory limit."""
    return DatasetTable(
        layout,
        dataset.id,
        transform.source.name,
        mode=dataset.mode,
        deletes=dataset.deletes,
        ttl_deletes=dataset.ttl_deletes,
        track=dataset.track,
        partition_by=tuple(dataset.partition_by),
        deletion_vectors=dataset.deletion_vectors,
        description=dataset.description,
        contract=dataset.contract,
        memory_limit_bytes=memory_limit_bytes,
        bucket=bucket,
        clock=clock,
    )


def require_stream(transform: Transform, dataset_id: str, doing: str) -> None:
    """Refuse a repair of a dataset that each run replaces as a whole.

    Raises:
        DefinitionError: The source has no stream.
    """
    if not transform.source.stream_enabled:
        raise DefinitionError(
            f"Dataset {dataset_id!r} can't be {doing}: its source has stream_enabled=False, so "
            "there are no changes to make it from.",
            safe="Nothing was read or written.",
            hint=f"A run of the job {transform.job_name} scans the table and makes all rows again.",
        )


def partition_columns(dataset: Dataset, facts: TableFacts | None) -> tuple[str, ...]:
    """Return the partition columns of a dataset's table, or of the one that will be created."""
    return tuple(dataset.partition_by if facts is None else facts.partition_by)


def setting_ignored(dataset: Dataset, facts: TableFacts) -> str | None:
    """Describe a setting of a dataset that its table does not follow, and the fix; None if none."""
    declared, actual = tuple(dataset.partition_by), facts.partition_by
    if declared == actual:
        return None
    return (
        f"Dataset {dataset.id!r} is declared with partition_by={list(declared)}, but its table "
        f"was created with {list(actual)}: the change is ignored. No row is missing or wrong. "
        f"Run `datazone-dagster rebuild {dataset.id}` to rebuild the table with it, or revert "
        "the change."
    )


class Lookups(NamedTuple):
    """Lookup tables of a transform by parameter, and the versions read, by dataset id."""

    tables: Mapping[str, pa.Table]
    versions: Mapping[str, int]


def read_lookups(transform: Transform, layout: Layout) -> Lookups:
    """Return the full lookup tables of a transform, as they are now.

    Raises:
        TransformError: A lookup has no table yet.
    """
    lookups, versions = {}, {}
    for parameter, reader in open_lookups(transform, layout).items():
        lookups[parameter] = reader.arrow()
        versions[reader.dataset_id] = reader.version
    return Lookups(lookups, versions)


class LookupReads:
    """The lookup tables of a run, and the versions that were read since the last report."""

    def __init__(self, transform: Transform, layout: Layout) -> None:
        self._transform = transform
        self._layout = layout
        self._versions: dict[str, list[int]] = {}

    def read(self) -> Mapping[str, pa.Table]:
        """Return the full tables as they are now, by parameter.

        Raises:
            TransformError: A lookup has no table yet.
        """
        lookups = read_lookups(self._transform, self._layout)
        for dataset_id, version in lookups.versions.items():
            self._versions.setdefault(dataset_id, []).append(version)
        return lookups.tables

    def versions(self) -> tuple[tuple[str, int, int], ...]:
        """Return dataset id, first and last version of each table."""
        return tuple((one, found[0], found[-1]) for one, found in self._versions.items())

    def forget_versions(self) -> None:
        """Begin the next report."""
        self._versions = {}


def open_lookups(transform: Transform, layout: Layout) -> dict[str, DatasetReader]:
    """Return readers of the lookup tables by parameter, without reading rows.

    Raises:
        TransformError: A lookup has no table yet.
    """
    readers = {}
    for parameter, dataset in transform.lookups.items():
        reader = read(layout, dataset.id)
        if reader is None:
            kept = "; the change log keeps the changes" if transform.source.stream_enabled else ""
            raise TransformError(
                f"Transform {transform.name!r} looks up dataset {dataset.id!r}, which "
                "has no table yet.",
                safe=f"Nothing was applied{kept}.",
                hint=f"Run the transform that writes {dataset.id!r} first.",
            )
        readers[parameter] = reader
    return readers
