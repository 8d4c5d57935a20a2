"""The change log: append a batch once, read a range of batches by pruning.

Files are pruned by the batch statistics of the Delta log and read in the order of their
batches. Within a batch the rows of a shard are in sequence, and a child's batches come after its
parent's, so the changes of one key are read oldest first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

import pyarrow as pa

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.changelog import gap_notes, ranges
from datazone_dagster.changelog.batch_epoch import epoch_of
from datazone_dagster.changelog.batch_writer import BatchWriter
from datazone_dagster.changelog.begin_batch import begin_batch
from datazone_dagster.changelog.chunks import CHUNK_COLUMNS, Chunk, cut_into_chunks
from datazone_dagster.changelog.compaction import files_to_join
from datazone_dagster.changelog.landed_notes import landed_in
from datazone_dagster.changelog.live_files import files_by_batches
from datazone_dagster.changelog.log_errors import truncated_error
from datazone_dagster.changelog.log_head import LogHead
from datazone_dagster.changelog.maintain_log import (
    delete_unreferenced_files,
    expired_files,
    join_files,
    remove_files,
)
from datazone_dagster.changelog.numbering import BY_COMMIT
from datazone_dagster.changelog.owner import KIND, check_owner, create_log, owner_of
from datazone_dagster.changelog.positions import POSITION_COLUMNS, landed
from datazone_dagster.changelog.range_rows import looked_up, range_rows
from datazone_dagster.changelog.row_groups import RowGroups
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.changelog.set_commits import sets_in
from datazone_dagster.delta import guarded
from datazone_dagster.delta.log_upkeep import checkpoint_due, make_checkpoint
from datazone_dagster.delta.table_state import KeptTable, kept_table
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.model.checkpoint import GapNote, Landed
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.snapshot_state import SnapshotState
from datazone_dagster.model.source_identity import PROPERTY as OWNER_PROPERTY
from datazone_dagster.model.source_identity import SourceIdentity
from datazone_dagster.model.table_file import DataFile


class ChangeLog:
    """The change log of one source, given by itself or, for any table's log, by its name.

    Opening raises `SourceMismatchError` if the log belongs to another table than the source.
    `identify` returns the table of a new log. Only changes of keys of `bucket` are read.
    """

    def __init__(
        self,
        layout: Layout,
        source: DynamoDBSource | str,
        identify: Callable[[], SourceIdentity | None] = lambda: None,
        bucket: KeyBucket = WHOLE,
    ) -> None:
        self._identify = identify
        self.bucket = bucket
        self.source = None if isinstance(source, str) else source
        self.name = source if isinstance(source, str) else source.name
        self.uri = layout.change_log(self.name)
        self.truncate_app_id = f"forget/{self.name}"
        self.storage_options = layout.storage_options

    @property
    def table(self) -> KeptTable:
        """State of the table that this process keeps."""
        return kept_table(self.uri, self.storage_options, KIND)

    def open(self) -> ChangeLogSnapshot | None:
        """Open the log as it is now; None if nothing was landed yet."""
        return self._at(self.table.now())

    def known(self) -> ChangeLogSnapshot | None:
        """Open the log as this process knows it, which costs no request once it was opened."""
        return self._at(self.table.seen())

    def open_or_create(self) -> ChangeLogSnapshot:
        """Open the log as it is now; create an empty one if there is none."""
        opened = self.open()
        if opened is None:
            snapshot = self.source is not None and self.source.start == "snapshot"
            create_log(self.uri, self.storage_options, self._identify(), with_snapshot=snapshot)
            opened = self.open()
            assert opened is not None, "the table was just created"
        return opened

    def _at(self, snapshot: Snapshot | None) -> ChangeLogSnapshot | None:
        return None if snapshot is None else ChangeLogSnapshot(self, self.table, snapshot)


class ChangeLogSnapshot:
    """The change log at one version: all reads and the one append are based on it."""

    def __init__(self, log: ChangeLog, table: KeptTable, at: Snapshot) -> None:
        self.uri, self.name = log.uri, log.name
        self.table_id = str(at.metadata["id"])  # another one if the log was made again
        self._log = log
        self._table = table
        self._head = LogHead(table, at, log.name)
        if log.source is not None:
            check_owner(self.properties, log.uri, log.source)

    def move_on(self, *, ask: bool = True) -> None:
        """Advance to the newest version, in one request; without `ask`, to the newest known one.

        Raises:
            StorageError: The store failed; the snapshot is at the same version as before.
        """
        with guarded(self.uri, "Looking for new batches of the change log"):
            self._head.move_on(ask=ask)

    @property
    def version(self) -> int:
        """The table version."""
        return self._head.at.version

    @property
    def head(self) -> int:
        """Number of the last batch."""
        return self._head.number

    @property
    def snapshot(self) -> SnapshotState | None:
        """The last snapshot of the source; None if there never was one."""
        return self._head.snapshot

    @property
    def drain_must_pass(self) -> datetime | None:
        """Time that a snapshot or an audit waits for the drain to pass; None: no such."""
        return self._head.drain_must_pass

    def pass_scans(self) -> None:
        """Advance past batches that a scan has landed, if no drain has landed any since."""
        with guarded(self.uri, "Looking for scanned rows in the change log"):
            self._head.pass_scans()

    @property
    def properties(self) -> Mapping[str, str]:
        """Table properties of the log."""
        return self._head.at.configuration

    @property
    def owner(self) -> SourceIdentity | None:
        """The table that the log belongs to; None if an earlier version of the library made it."""
        return owner_of(self.properties)

    def record_owner(self, owner: SourceIdentity) -> None:
        """Store the table that the log belongs to.

        Raises:
            ConcurrentWriterError: Another commit came first; a later drain stores it.
            StorageError: The store failed.
        """
        self.set_property(OWNER_PROPERTY, owner.to_json(), "Storing the table of the source")

    @property
    def gaps(self) -> tuple[GapNote, ...]:
        """The gaps stored with the log, accepted ones included."""
        return gap_notes.from_json(self.properties.get(gap_notes.PROPERTY))

    def record_gaps(self, notes: Iterable[GapNote]) -> None:
        """Store the gap notes of the checkpoint, and every earlier acceptance.

        Raises:
            ConcurrentWriterError: Another commit came first; a later drain stores them.
            StorageError: The store failed.
        """
        stored = self.gaps
        wanted = gap_notes.merged(stored, notes)
        if wanted != stored:
            self.set_property(gap_notes.PROPERTY, gap_notes.to_json(wanted), "Storing the gaps")

    def begin(self, epoch: int, set_name: str | None = None) -> BatchWriter:
        """Begin the next batch, to put records into: see `begin_batch`.

        Its `put` and `commit` raise:
            ConcurrentWriterError: Another commit came first that is not of a scan, be it a property
                alone; with `set_name`, one that concerns the same shards.
            StorageError: The store failed; the next snapshot's head shows whether it landed.
        """
        return begin_batch(self.uri, self._table, self._head, epoch, set_name)

    def append(self, epoch: int, shards: Iterable[ShardRecords]) -> int | None:
        """Land one batch, once, and return its number: `begin`, its records, `commit`."""
        with self.begin(epoch) as writer:
            for shard in shards:
                writer.put(shard)
            return writer.commit()

    def maintain_once(self) -> bool:
        """Do the next piece of maintenance, about a second of work.

        Returns:
            False if there was nothing to do.

        Raises:
            ConcurrentWriterError: Another commit came first; a later drain repeats the piece.
            StorageError: The store failed; nothing in the log is lost.
        """
        if self.is_checkpoint_due:
            with guarded(self.uri, "Writing a checkpoint of the change log's table"):
                self._head.move_to(make_checkpoint(self._table, self._head.at))
            return True
        if not (files := files_to_join(self.files, self.head)):
            return False
        joined = join_files(self._head.at, files, self._head.source)
        self._head.move_to(self._table.took(joined))
        return True

    @property
    def is_checkpoint_due(self) -> bool:
        """Whether the next `maintain_once` writes a checkpoint of the table."""
        return checkpoint_due(self._head.at)

    def delete_orphan_files(self) -> None:
        """Delete files that were joined or truncated hours ago, or that no commit ever named.

        Meant to be called every hour.

        Raises:
            StorageError: The store failed; the next call deletes the remaining files.
        """
        first_batch = self.files[0].minimum[Log.BATCH] if self.files else self.head
        delete_unreferenced_files(self._table, self._head.at, first_batch, self.head)

    def truncate(self, applied_batch: int, created_before: datetime) -> int:
        """Remove the oldest changes for good, if they are applied and old enough.

        A dataset can't be rebuilt from removed changes. Complete files are removed, oldest first.

        Args:
            applied_batch: Lowest position of all datasets of the source.
            created_before: Time from which on changes stay.

        Returns:
            Number of changes removed.

        Raises:
            ConcurrentWriterError: Another commit came first; nothing changed.
            StorageError: The store failed.
        """
        if files := expired_files(self.files, applied_batch, created_before):
            removed = remove_files(
                self._head.at, files, self._log.truncate_app_id, self._head.source
            )
            self._head.move_to(self._table.took(removed))
        return sum(file.num_records for file in files)

    def landed_since(self, batch: int) -> list[Landed]:
        """Return the positions that the batches after `batch` reach.

        They are in the notes of the commits; where one is missing, the rows are read: see `landed`.
        """
        noted = landed_in((one.content for one in self._head.at.notes), batch, self.head)
        return landed(self._read(batch, self.head, POSITION_COLUMNS)) if noted is None else noted

    def chunks(
        self,
        after_batch: int,
        through_batch: int,
        chunk_bytes: int,
        *,
        columns: Sequence[str] = CHUNK_COLUMNS,
    ) -> Iterator[Chunk]:
        """Yield the batches in (after_batch, through_batch] as chunks of complete batches.

        Args:
            after_batch: Start of the range, exclusive.
            through_batch: End of the range, inclusive.
            chunk_bytes: Size of a chunk, decoded, in bytes: see `cut_into_chunks`. The other
                columns count as well: `columns_of` can add them without the chunk growing past
                its intended size.
            columns: Columns to read, the batch among them.

        Raises:
            StorageError: Changes of the range were removed by `truncate`, or the store failed.
        """
        self._check_range(after_batch, through_batch)
        with guarded(self.uri, "Reading changes"):
            tables = self._read_sized(after_batch, through_batch, columns)
            yield from cut_into_chunks(tables, chunk_bytes)

    def columns_of(self, chunk: Chunk, columns: Sequence[str]) -> pa.Table:
        """Read more columns of the rows of a chunk of this snapshot, in the order of its rows.

        Raises:
            StorageError: The store failed.
        """
        with guarded(self.uri, "Reading changes"):
            return pa.concat_tables(self._read(chunk.first_batch - 1, chunk.last_batch, columns))

    def has_rows(self, after_batch: int, through_batch: int) -> bool:
        """Return whether the batches in (after_batch, through_batch] contain any change."""
        files = ranges.files_between(self.files, after_batch, through_batch, self._log.bucket)
        if self._log.bucket.is_whole and ranges.surely_between(files, after_batch, through_batch):
            return True
        return any(True for _ in self._read(after_batch, through_batch, [Log.BATCH]))

    def rows_of_time(
        self, first: datetime, last: datetime, columns: Sequence[str]
    ) -> Iterator[pa.Table]:
        """Yield columns of the files that may have changes of this time, by their statistics."""
        files = ranges.files_of_time(self.files, first, last)
        return looked_up(self._table.store, files, columns)

    def rows_at(self, seconds: Sequence[int], columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield columns of the files that may have changes of these seconds since 1970."""
        return looked_up(self._table.store, ranges.files_at(self.files, seconds), columns)

    def row_groups(self, after_batch: int, through_batch: int) -> RowGroups:
        """Return the row groups of the batches in (after_batch, through_batch].

        Raises:
            StorageError: Changes of the range were removed by `truncate`.
        """
        self._check_range(after_batch, through_batch)
        store, bucket = self._table.store, self._log.bucket
        files = ranges.files_between(self.files, after_batch, through_batch, bucket)
        return RowGroups(store, files, after_batch, through_batch, bucket)

    def epoch_of(self, batch: int) -> int | None:
        """Return the epoch of a batch, also without changes; None if it is not known for sure."""
        notes = (one.content for one in self._head.at.notes)
        return epoch_of(batch, self.truncated_through, self.head, notes, self._read)

    def oldest_event_time_after(self, batch: int) -> datetime | None:
        """Return the oldest event time in the batches after `batch`, from file statistics."""
        files = ranges.files_between(self.files, batch, self.head)
        times = [one.minimum[Log.EVENT_TIME] for one in files if Log.EVENT_TIME in one.minimum]
        return min(times, default=None)

    def record_count(self, through_batch: int | None = None) -> int:
        """Return the number of records up to a batch, from file statistics; None: of all."""
        return sum(
            file.num_records
            for file in self.files
            if through_batch is None or file.maximum[Log.BATCH] <= through_batch
        )

    def stored_bytes(self, after_batch: int, through_batch: int) -> int:
        """Return the approximate file size of the batches in (after_batch, through_batch]."""
        return ranges.stored_bytes(self.files, after_batch, through_batch)

    @property
    def truncated_through(self) -> int:
        """Last batch that was removed for good; 0 if none was."""
        return self._head.at.transaction(self._log.truncate_app_id)

    @property
    def batches_of_sets(self) -> dict[str, int]:
        """Last batch of each set of shards, by its name."""
        return sets_in(self._head.at.transactions, self.name)

    @property
    def files(self) -> list[DataFile]:
        """Files in the order of their batches. Not to be changed."""
        return files_by_batches(self._table, self._head.at)

    def set_property(self, name: str, value: str, doing: str) -> None:
        """Store a table property; `doing` is for errors."""
        with guarded(self.uri, doing):
            self._head.set_property(name, value)

    def number_by_commit(self) -> None:
        """Have commits number the batches from now on, for several drains: see `numbering`."""
        if BY_COMMIT not in self.properties:
            with guarded(self.uri, "Preparing the change log for several drains"):
                self._head.number_by_commit()

    def _check_range(self, after_batch: int, through_batch: int) -> None:
        if after_batch < min(self.truncated_through, through_batch):
            raise truncated_error(self.uri, self.name, after_batch, self.truncated_through)

    def _read(
        self, after_batch: int, through_batch: int, columns: Sequence[str]
    ) -> Iterator[pa.Table]:
        """Yield the rows of the batches in (after_batch, through_batch], in order."""
        return (rows for rows, _ in self._read_sized(after_batch, through_batch, columns))

    def _read_sized(
        self, after_batch: int, through_batch: int, columns: Sequence[str]
    ) -> Iterator[tuple[pa.Table, float]]:
        """As `_read`, with the approximate bytes that a row's other columns would take."""
        store, bucket = self._table.store, self._log.bucket
        files = ranges.files_between(self.files, after_batch, through_batch, bucket)
        yield from range_rows(store, files, after_batch, through_batch, columns, bucket)
