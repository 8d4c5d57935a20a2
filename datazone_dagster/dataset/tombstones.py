"""Keys that left a dataset, so that an older change that comes later can't bring them back.

Written before the commit that removes the rows: should that commit fail, the tombstone only
repeats what the change log says. They go after a retention, by dropping whole days.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, Schema, WriterProperties, write_deltalake

from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.delta import (
    DataFile,
    create_table,
    data_files,
    filesystem,
    guarded,
    open_table,
)
from datazone_dagster.model.column_names import EVENT_TIME, KEY, VERSION
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.version import split_version
from datazone_dagster.rows.existing_rows import full_rows
from datazone_dagster.rows.merge_batch import CAUSE
from datazone_dagster.rows.versions import HIGHEST, versions_in, with_highest

KIND = "tombstones"

RETENTION = timedelta(days=7)

DAY = "day"
EPOCH = "epoch"
RANK = "sequence_rank"
DELETED_AT = "deleted_at"
IMAGE_VERSION = "image_version"

SCHEMA = pa.schema(
    [
        pa.field(DAY, pa.string(), nullable=False),
        pa.field(KEY, pa.string(), nullable=False),
        pa.field(VERSION, pa.string(), nullable=False),
        pa.field(CAUSE, pa.string(), nullable=False),
        pa.field(DELETED_AT, pa.timestamp("us", tz="UTC"), nullable=False),
        # The version in two numbers: Delta cuts the statistics of strings after 32
        # characters, too few to prune files by a version.
        pa.field(EPOCH, pa.int64(), nullable=False),
        pa.field(RANK, pa.float64(), nullable=False),
        # Of soft deletes: when the item was deleted, and the version of the image that stayed.
        pa.field(EVENT_TIME, pa.timestamp("us", tz="UTC")),
        pa.field(IMAGE_VERSION, pa.string()),
    ]
)

_OF = (KEY, VERSION, CAUSE, EVENT_TIME, IMAGE_VERSION)

_CONFIGURATION = {
    "delta.dataSkippingStatsColumns": f"{EPOCH},{RANK}",
    "delta.logRetentionDuration": "interval 1 days",
    "delta.deletedFileRetentionDuration": "interval 1 days",
}


class Tombstones:
    """The tombstones of one dataset."""

    def __init__(self, layout: Layout, dataset_id: str) -> None:
        self.uri = layout.tombstones(dataset_id)
        self._storage_options = layout.storage_options
        self._dataset_id = dataset_id
        self._quarantine = Quarantine(layout, dataset_id)

    def superseded(self, keyed_changes: pa.Table) -> pa.Table:
        """The claims that are older than a tombstone of their key.

        A tombstone of the same version is the same change, and does not block: the function
        may have been mended since it filtered that change out.
        """
        table = open_table(self.uri, self._storage_options, KIND)
        if table is None or not len(keyed_changes):
            return keyed_changes.slice(0, 0)
        lowest = split_version(pc.min(keyed_changes[VERSION]).as_py())
        files = files_from(table, *lowest)
        held = versions_in(table, self._storage_options, files, keyed_changes[KEY])
        if not len(held):
            return keyed_changes.slice(0, 0)
        both = with_highest(
            keyed_changes.filter(pc.is_in(keyed_changes[KEY], held[KEY].combine_chunks())), held
        )
        return both.filter(pc.greater(both[HIGHEST], both[VERSION]))

    def of(self, keys: pa.ChunkedArray) -> pa.Table:
        """Every tombstone of these keys: version, cause, event time and image version."""
        columns = pa.schema([SCHEMA.field(name) for name in _OF])
        table = open_table(self.uri, self._storage_options, KIND)
        if table is None or not len(keys):
            return columns.empty_table()
        wanted = pc.unique(keys.combine_chunks())
        store = filesystem(table, self._storage_options)
        parts = [
            rows.filter(pc.is_in(rows[KEY], wanted))
            for file in data_files(table)
            for rows in full_rows(store, file, columns)
        ]
        return pa.concat_tables([columns.empty_table(), *parts])

    def absorb(self, other: Tombstones, now: datetime) -> None:
        """Record the tombstones of another table, too."""
        table = open_table(other.uri, other._storage_options, KIND)
        if table is None:
            return
        columns = pa.schema([SCHEMA.field(name) for name in _OF])
        store = filesystem(table, other._storage_options)
        parts = [rows for file in data_files(table) for rows in full_rows(store, file, columns)]
        self.write(pa.concat_tables([columns.empty_table(), *parts]), now)

    def write(self, keyed_changes: pa.Table, now: datetime) -> None:
        """Record the claims that have a cause; event time and image version may be missing."""
        gone = keyed_changes.filter(pc.is_valid(keyed_changes[CAUSE]))
        if not len(gone):
            return
        table = open_table(self.uri, self._storage_options, KIND) or create_table(
            self.uri,
            self._storage_options,
            KIND,
            SCHEMA,
            partition_by=(DAY,),
            configuration=_CONFIGURATION,
            description=f"Keys that left dataset {self._dataset_id}, for "
            f"{RETENTION.days} days. Written by datazone_dagster only.",
        )
        with guarded(self.uri, f"Writing tombstones of dataset {self._dataset_id!r}"):
            known = {field.name for field in table.schema().fields}
            added = [field for field in SCHEMA if field.name not in known]
            if added:
                table.alter.add_columns(list(Schema.from_arrow(pa.schema(added)).fields))
            write_deltalake(
                table,
                _rows(gone, now),
                mode="append",
                writer_properties=WriterProperties(compression="ZSTD", compression_level=1),
            )
            expire_days(table, now, self._quarantine)


def expire_days(
    table: DeltaTable, now: datetime, quarantine: Quarantine, column: str = DAY
) -> None:
    """Drop the days that are older than the retention from a table partitioned by day.

    But none that a quarantined change may need: one that is redriven after weeks must not
    bring back a key that was deleted since.
    """
    days = {file.partition[column] for file in data_files(table)}
    expired = sorted(day for day in days if day < day_of(now - RETENTION))
    if expired:
        oldest = quarantine.oldest_waiting()
        expired = [day for day in expired if oldest is None or day < day_of(oldest)]
    if expired:
        # Days are made by us from the clock, so they are safe inside the predicate.
        listed = ", ".join(f"'{day}'" for day in expired)
        table.delete(f"{column} in ({listed})")
        table.vacuum(dry_run=False, retention_hours=24, enforce_retention_duration=False)


def files_from(table: DeltaTable, epoch: int, sequence_number: int) -> list[DataFile]:
    """Files that may hold a version above this one."""
    rank = float(sequence_number)
    return [
        file
        for file in data_files(table)
        if file.maximum[EPOCH] > epoch
        or (file.maximum[EPOCH] == epoch and file.maximum[RANK] >= rank)
    ]


def _rows(gone: pa.Table, now: datetime) -> pa.Table:
    epochs, ranks = version_numbers(gone[VERSION])
    rows = len(gone)
    return pa.table(
        [
            pa.repeat(day_of(now), rows),
            gone[KEY],
            gone[VERSION],
            gone[CAUSE],
            pa.repeat(pa.scalar(now, SCHEMA.field(DELETED_AT).type), rows),
            epochs,
            ranks,
            *(
                gone[name] if name in gone.column_names else pa.nulls(rows, SCHEMA.field(name).type)
                for name in (EVENT_TIME, IMAGE_VERSION)
            ),
        ],
        schema=SCHEMA,
    )


def version_numbers(versions: pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
    """Epochs and ranks of versions: numbers that Delta keeps statistics of."""
    split = [split_version(version) for version in versions.to_pylist()]
    epochs = pa.array([epoch for epoch, _ in split], pa.int64())
    return epochs, pa.array([float(number) for _, number in split], pa.float64())


def day_of(time: datetime) -> str:
    """The day that a time is of, as partitions are named."""
    return time.strftime("%Y-%m-%d")
