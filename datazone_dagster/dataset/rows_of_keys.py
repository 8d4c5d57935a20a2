"""Rows of a dataset that show items as they are: all of them, or those of some keys."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.dataset.bucket_positions import applied_batches
from datazone_dagster.dataset.dataset_progress import progress_of
from datazone_dagster.dataset.dataset_table import KIND
from datazone_dagster.dataset.properties import MODE, generation_of, property_of
from datazone_dagster.dataset.read_dataset import DatasetReader
from datazone_dagster.delta.table import Table, opened
from datazone_dagster.errors import StorageError
from datazone_dagster.model.column_names import DELETED, IS_CURRENT, KEY, VERSION
from datazone_dagster.model.layout import Layout
from datazone_dagster.rows.engine import MergeTarget
from datazone_dagster.rows.existing_rows import find_rows, read_existing


@dataclass(frozen=True)
class ShownRows:
    """Rows of some keys, and the position of the dataset that has them."""

    rows: pa.Table
    position: int


class ShownDataset:
    """A dataset at one version of its table. Deleted items and closed intervals are left out.

    Args:
        layout: Locations of the tables.
        source: Name of the source.
        dataset_id: The dataset.

    Raises:
        StorageError: There is no such table, or it can't be read.
    """

    def __init__(self, layout: Layout, source: str, dataset_id: str) -> None:
        self._options = dict(layout.storage_options)
        self._uri = layout.dataset(dataset_id)
        self._dataset_id = dataset_id
        table = opened(self._uri, self._options, KIND)
        if table is None:
            raise StorageError(
                f"Dataset {dataset_id!r} has no table at {self._uri} yet.",
                hint="The first run of the transform that writes it creates the table.",
            )
        self._table: Table = table
        self._source = source
        self.position = progress_of(table.at, source).position
        """Last batch that is in the table."""
        self.newest = max(applied_batches(table.at, source).values(), default=0)
        """Last batch that has changes in the table: some buckets may be further than others."""
        self.schema = table.schema
        """Schema of the table."""
        self.partition_by = list(table.partition_columns)
        """Partition columns."""

    @property
    def mode(self) -> str | None:
        """Mode in which the table was made; None if it does not say."""
        name = property_of(MODE, generation_of(self._table.at, self._source))
        return self._table.properties.get(name)

    def batches(self, columns: Collection[str]) -> Iterator[pa.RecordBatch]:
        """Yield the key and these columns of all rows.

        Raises:
            StorageError: The table can't be read.
        """
        conditions = [IS_CURRENT] if IS_CURRENT in self.schema.names else []
        if DELETED in self.schema.names:
            conditions.append(f"NOT coalesce({DELETED}, false)")
        reader = DatasetReader(self._dataset_id, self._table, self._options)
        names = [KEY, *(name for name in columns if name != KEY)]
        yield from reader.batches(names, " AND ".join(conditions) or None)

    def of_keys(self, keys: Sequence[str]) -> ShownRows:
        """Return the rows of these keys, without decoding the row groups of others.

        Raises:
            StorageError: The table can't be read.
        """
        wanted = pa.chunked_array([pa.array(list(dict.fromkeys(keys)), pa.string())])
        target = MergeTarget(self._dataset_id, self._table, self.schema)
        found = find_rows(target, wanted)
        rows = read_existing(target, found, found.locations.select([KEY, VERSION]))
        if IS_CURRENT in rows.column_names:
            rows = rows.filter(pc.fill_null(rows[IS_CURRENT], False))
        if DELETED in rows.column_names:
            rows = rows.filter(pc.invert(pc.fill_null(rows[DELETED], False)))
        return ShownRows(rows, self.position)
