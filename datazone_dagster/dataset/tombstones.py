"""Tombstones: keys that left a dataset, so that an older change arriving later can't restore them.

A tombstone is written before the commit that removes the rows; it expires after the retention of
a companion table.
"""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.dataset.companion_table import CompanionTable, Stamps
from datazone_dagster.delta import guarded
from datazone_dagster.model.column_names import EVENT_TIME, KEY, VERSION
from datazone_dagster.model.layout import Layout
from datazone_dagster.rows.align import aligned
from datazone_dagster.rows.append import append
from datazone_dagster.rows.merge_batch import CAUSE
from datazone_dagster.rows.versions import HIGHEST, versions_in, with_highest

KIND = "tombstones"

DELETED_AT = "deleted_at"
IMAGE_VERSION = "image_version"

_STAMPS = Stamps(day="day", epoch="epoch", rank="sequence_rank")

SCHEMA = pa.schema(
    [
        pa.field(_STAMPS.day, pa.string(), nullable=False),
        pa.field(KEY, pa.string(), nullable=False),
        pa.field(VERSION, pa.string(), nullable=False),
        pa.field(CAUSE, pa.string(), nullable=False),
        pa.field(DELETED_AT, pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field(_STAMPS.epoch, pa.int64(), nullable=False),
        pa.field(_STAMPS.rank, pa.float64(), nullable=False),
        # Soft deletes only: when the item was deleted, and the version of the image that stayed.
        pa.field(EVENT_TIME, pa.timestamp("us", tz="UTC")),
        pa.field(IMAGE_VERSION, pa.string()),
    ]
)

_CHANGE = pa.schema(
    [SCHEMA.field(name) for name in (KEY, VERSION, CAUSE, EVENT_TIME, IMAGE_VERSION)]
)


class Tombstones:
    """The tombstones of one dataset."""

    def __init__(self, layout: Layout, dataset_id: str, source: str) -> None:
        self._dataset_id = dataset_id
        self._companion = CompanionTable(
            layout,
            dataset_id,
            source,
            layout.tombstones(dataset_id),
            kind=KIND,
            stamps=_STAMPS,
            contents="tombstones",
        )

    @property
    def uri(self) -> str:
        """Location of the table."""
        return self._companion.uri

    def begin(self) -> None:
        """See `CompanionTable.begin`."""
        self._companion.begin()

    def exist(self) -> bool:
        """Return whether there is a table."""
        return self._companion.open() is not None

    def prepare(self) -> None:
        """Create the table if there is none, or add columns, for another engine that writes to it.

        Raises:
            StorageError: The store failed.
        """
        table = self._companion.open_or_create(SCHEMA, f"Keys that left dataset {self._dataset_id}")
        added = [field for field in SCHEMA if field.name not in table.schema.names]
        if added:
            with guarded(self.uri, f"Adding columns to tombstones of dataset {self._dataset_id!r}"):
                append(table, pa.schema([*table.schema, *added]).empty_table(), added=added)

    def maintain(self, now: datetime) -> None:
        """Do what follows a write: another engine has written tombstones."""
        table = self._companion.open()
        if table is not None:
            with guarded(self.uri, f"Expiring tombstones of dataset {self._dataset_id!r}"):
                self._companion.maintain(table, now)

    def superseded(self, keyed_changes: pa.Table) -> pa.Table:
        """Return the keyed changes that are older than a tombstone of their key.

        A tombstone of the same version is the same change and does not supersede it: the
        function may have been fixed since it filtered that change out.
        """
        table = self._companion.begun()
        if table is None or not len(keyed_changes):
            return keyed_changes.slice(0, 0)
        lowest = pc.min(keyed_changes[VERSION]).as_py()
        files = self._companion.files_from(table.at.files, lowest)
        with guarded(self._companion.uri, f"Reading tombstones of dataset {self._dataset_id!r}"):
            found = versions_in(table.at, files, keyed_changes[KEY])
        if not len(found):
            return keyed_changes.slice(0, 0)
        both = with_highest(
            keyed_changes.filter(pc.is_in(keyed_changes[KEY], found[KEY].combine_chunks())), found
        )
        return both.filter(pc.greater(both[HIGHEST], both[VERSION]))

    def for_keys(self, keys: pa.ChunkedArray) -> pa.Table:
        """Return every tombstone of these keys: version, cause, event time and image version."""
        table = self._companion.open()
        if table is None or not len(keys):
            return _CHANGE.empty_table()
        return self._companion.read(table, _CHANGE, pc.unique(keys.combine_chunks()))

    def copy_from(self, other: Tombstones, now: datetime) -> None:
        """Add the tombstones of another table."""
        table = other._companion.open()
        if table is not None:
            self.write(other._companion.read(table, _CHANGE), now)

    def write(self, keyed_changes: pa.Table, now: datetime) -> None:
        """Write a tombstone for each keyed change that has a cause.

        The columns of event time and image version may be missing.
        """
        removed = keyed_changes.filter(pc.is_valid(keyed_changes[CAUSE]))
        if not len(removed):
            return
        table = self._companion.open_or_create(SCHEMA, f"Keys that left dataset {self._dataset_id}")
        deleted_at = pa.scalar(now, SCHEMA.field(DELETED_AT).type)
        values = {DELETED_AT: deleted_at, **_STAMPS.values(removed[VERSION], now)}
        with guarded(self._companion.uri, f"Writing tombstones of dataset {self._dataset_id!r}"):
            known = table.schema.names
            added = [field for field in SCHEMA if field.name not in known]
            self._companion.append(table, aligned(removed, SCHEMA, values), now, added=added)
