"""A table next to a dataset's, for changes that its rows do not show and late changes depend on.

It is written before the commit of the dataset that needs it: if that commit fails, its rows only
repeat what the change log says. Rows expire after a retention, by dropping full days.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.dataset.properties import erasures_of
from datazone_dagster.dataset.retention import oldest_needed
from datazone_dagster.dataset.table_shape import KIND as DATASET_KIND
from datazone_dagster.delta import Commit, guarded
from datazone_dagster.delta.commit import FileActions, LostRaceError, commit_files, why_not
from datazone_dagster.delta.live_file import LiveFile
from datazone_dagster.delta.log_upkeep import NO_CLEANING
from datazone_dagster.delta.orphans import orphan_files
from datazone_dagster.delta.read_file import live_batches
from datazone_dagster.delta.rebase import Independent
from datazone_dagster.delta.table import Table, created, opened
from datazone_dagster.delta.write_table import drop_partitions
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.column_names import KEY
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import utc_now
from datazone_dagster.model.version import split_version
from datazone_dagster.rows.align import Values
from datazone_dagster.rows.append import append

RETENTION = timedelta(days=7)

ERASED = "erase"
"""Application id whose version counts the erasures from the table."""

ATTEMPTS = 50
"""Attempts at one append while others commit first: every bucket of the dataset may."""

_REPLACED_STAY = timedelta(days=1)
"""Time for which dropped files and entries of the log stay, for readers of older versions."""


class _Bounded(Protocol):
    @property
    def maximum(self) -> Mapping[str, Any]:
        """Upper bounds by column."""


File = TypeVar("File", bound=_Bounded)


@dataclass(frozen=True)
class Stamps:
    """Names of the columns that a companion table adds to its rows.

    A version is repeated as two numbers: Delta truncates string statistics to 32 characters, too
    few to prune files by a version.

    Args:
        day: Day of the write; the table is partitioned by it.
        epoch: Epoch of the row's version.
        rank: Sequence number of the row's version, as a float.
    """

    day: str
    epoch: str
    rank: str

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """The columns, in this order."""
        return (
            pa.field(self.day, pa.string()),
            pa.field(self.epoch, pa.int64()),
            pa.field(self.rank, pa.float64()),
        )

    def values(self, versions: pa.ChunkedArray, now: datetime) -> dict[str, Values]:
        """Return the values of the columns for rows of these versions that are written now."""
        split = [split_version(version) for version in versions.to_pylist()]
        return {
            self.day: pa.scalar(_day_of(now)),
            self.epoch: pa.array([epoch for epoch, _ in split], pa.int64()),
            self.rank: pa.array([float(number) for _, number in split], pa.float64()),
        }


class CompanionTable:
    """One companion table of a dataset.

    Args:
        layout: Layout of the lakehouse.
        dataset_id: The dataset.
        source: Name of the dataset's source.
        uri: URI of the table.
        kind: Kind of the table, see `datazone_dagster.delta.KIND`.
        stamps: Names of the columns that the table adds to its rows.
        contents: Description of the rows, for the table and for errors, such as "tombstones".
    """

    def __init__(
        self,
        layout: Layout,
        dataset_id: str,
        source: str,
        uri: str,
        *,
        kind: str,
        stamps: Stamps,
        contents: str,
    ) -> None:
        self.uri = uri
        self.storage_options = dict(layout.storage_options)
        self._dataset_id = dataset_id
        self._kind = kind
        self._stamps = stamps
        self._contents = contents
        self._layout = layout
        self._source = source
        self._erasures: int | None = None
        self._dataset_erasures = 0

    def open(self) -> Table | None:
        """Open the table; None if there is none."""
        return opened(self.uri, self.storage_options, self._kind)

    def begun(self) -> Table | None:
        """Open the table as of `begin`, or as it is now if that was not called."""
        look = self._erasures is None
        return opened(self.uri, self.storage_options, self._kind, look=look)

    def begin(self) -> None:
        """Look at the table: if keys are erased from it after this call, `append` fails.

        The dataset counts an erasure before the table does. So call it before the dataset is found
        to have had no erasure since the changes were read: what they have is then erased here later
        than this call, if at all.

        Raises:
            StorageError: The table can't be read.
        """
        table = self.open()
        self._erasures = 0 if table is None else table.transaction(ERASED)
        self._dataset_erasures = self._erasures_of_dataset(look=False)

    def open_or_create(self, schema: pa.Schema, description: str) -> Table:
        """Open the table, or create it with these columns, the stamps among them.

        Raises:
            ConcurrentWriterError: Keys were erased since `begin`, when there was no table yet.
            StorageError: The store failed.
        """
        table = self.open()
        if table is None:
            table = self._created(schema, description)
            erasures = self._erasures_of_dataset(look=True)
            if self._erasures is not None and erasures != self._dataset_erasures:
                raise self._erased()
        return table

    def _created(self, schema: pa.Schema, description: str) -> Table:
        stamps = self._stamps
        return created(
            self.uri,
            self.storage_options,
            self._kind,
            schema,
            partition_by=(stamps.day,),
            configuration={
                "delta.dataSkippingStatsColumns": f"{stamps.epoch},{stamps.rank}",
                **NO_CLEANING,
                "delta.logRetentionDuration": "interval 1 days",
                "delta.deletedFileRetentionDuration": "interval 1 days",
            },
            description=f"{description}, for {RETENTION.days} days. "
            "Written by datazone_dagster only.",
        )

    def append(
        self,
        table: Table,
        rows: pa.Table,
        now: datetime,
        commit: Commit | None = None,
        *,
        added: Sequence[pa.Field] = (),
        independent: Independent | None = None,
    ) -> None:
        """Append rows, then drop the days that have expired.

        Args:
            table: The table.
            rows: Rows in the table's schema, with the columns of `added`.
            now: The current time.
            commit: Properties that the commit carries: it fails if another one comes first. None:
                the rows are right for any version.
            added: Columns that the table gets with the rows.
            independent: Writers of other keys, which do not count as others.

        Raises:
            ConcurrentWriterError: Another commit came first, with `commit`; or keys were erased.
            StorageError: The store failed.
        """
        append(
            table,
            rows,
            commit,
            added=added,
            attempts=1 if commit else ATTEMPTS,
            independent=independent,
            check=self.require_erasures,
        )
        self.maintain(table, now)

    def require_erasures(self, table: Table) -> None:
        """Check that no key was erased since `begin`, if that was called."""
        if self._erasures not in (None, table.transaction(ERASED)):
            raise self._erased()

    def _erasures_of_dataset(self, *, look: bool) -> int:
        """Return how often keys were erased from the dataset, which counts before this table."""
        uri = self._layout.dataset(self._dataset_id)
        table = opened(uri, self.storage_options, DATASET_KIND, look=look)
        return 0 if table is None else erasures_of(table.at, self._source)

    def _erased(self) -> ConcurrentWriterError:
        return ConcurrentWriterError(
            f"Keys were erased from dataset {self._dataset_id!r} after the changes were read and "
            f"before its {self._contents} were written.",
            safe="Nothing of this attempt was written; the next one reads the changes again.",
        )

    def maintain(self, table: Table, now: datetime) -> None:
        """Drop the days that have expired, and keep the table's log short."""
        self._expire(table, now)
        table.keep_short(_REPLACED_STAY)

    def files_from(self, files: Iterable[File], version: str) -> list[File]:
        """Return the files that may contain this version or a higher one, of any key."""
        lowest = split_version(version)
        return [file for file in files if self._may_reach(file, *lowest)]

    def read(
        self,
        table: Table,
        schema: pa.Schema,
        keys: pa.Array | None = None,
        *,
        lowest: str | None = None,
    ) -> pa.Table:
        """Return rows of the table.

        Args:
            table: The table.
            schema: Columns to read; a column that a file lacks is null.
            keys: Keys whose rows are returned; None: all.
            lowest: Version from which on all rows are returned; lower ones may be among them.
                None: all versions.

        Raises:
            StorageError: The table can't be read.
        """
        # Not read by delta-rs: it has no statistics for tables with binary and nested columns.
        snapshot = table.at
        files = snapshot.files if lowest is None else self.files_from(snapshot.files, lowest)
        found: list[pa.RecordBatch] = []
        with guarded(self.uri, f"Reading {self._contents} of dataset {self._dataset_id!r}"):
            for file in files:
                batches = live_batches(snapshot, file, schema, snapshot.deleted_in(file))
                if keys is not None:
                    batches = (one.filter(pc.is_in(one.column(KEY), keys)) for one in batches)
                found += batches
        return pa.Table.from_batches(found, schema)

    def _may_reach(self, file: _Bounded, epoch: int, sequence_number: int) -> bool:
        highest = file.maximum.get(self._stamps.epoch), file.maximum.get(self._stamps.rank)
        return None in highest or highest >= (epoch, float(sequence_number))

    def _expire(self, table: Table, now: datetime) -> None:
        """Drop the days that are older than the retention.

        Days that a change may need that arrives even later stay: see `oldest_needed`.
        """
        days = [(file, file.partition_values[self._stamps.day] or "") for file in table.at.files]
        last = _day_of(now - RETENTION)
        if not any(day < last for _, day in days):
            return
        oldest = oldest_needed(self._layout, self._dataset_id, self._source)
        first = last if oldest is None else min(last, _day_of(oldest))
        expired = [file for file, day in days if day < first]
        if expired:
            self._drop(table, expired, sorted({day for _, day in days if day < first}))

    def _drop(self, table: Table, files: Sequence[LiveFile], days: Sequence[str]) -> None:
        """Drop the files of full days, and those that were replaced a while ago."""
        if why_not(table.at) is not None:
            with table.by_delta_rs() as handle:
                drop_partitions(handle, self._stamps.day, days)
            return
        try:
            after = commit_files(
                table.at,
                FileActions([], files),
                operation="DELETE",
                parameters={},
                metrics={"num_removed_files": len(files)},
            )
        except (LostRaceError, ConcurrentWriterError):
            return  # a later append drops them
        table.move_to(after)
        after.store.delete(orphan_files(after, utc_now() - _REPLACED_STAY))


def _day_of(time: datetime) -> str:
    """Return the day of a time in the form of a partition value."""
    return time.strftime("%Y-%m-%d")
