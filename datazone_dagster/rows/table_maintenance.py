"""Maintenance of a dataset's table: fewer files, no hidden rows, a short log, no orphan files.

The one writer of the table runs it after a merge, a bounded piece at a time. It changes no row,
and the files of older versions stay for the retention. If another commit comes first, that commit
wins, and the piece is done in a later run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, Transaction
from deltalake.exceptions import CommitFailedError

from datazone_dagster.delta import guarded
from datazone_dagster.delta.commit import FileActions, LostRaceError, commit_files, why_not
from datazone_dagster.delta.data_file import write_data_file
from datazone_dagster.delta.live_file import LiveFile
from datazone_dagster.delta.log_upkeep import checkpoint_due, clean_log, make_checkpoint
from datazone_dagster.delta.orphans import orphan_files
from datazone_dagster.delta.read_file import live_batches
from datazone_dagster.delta.table import Table, opened
from datazone_dagster.delta.transaction_log import Action, Snapshot
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import MaintenanceReport
from datazone_dagster.process import crash_points
from datazone_dagster.rows.append import FRESH_SECONDS
from datazone_dagster.rows.bucket_files import ALL_FILES, TAG, Share, tag_in, tagged
from datazone_dagster.rows.kept_indexes import KEPT_INDEXES
from datazone_dagster.rows.maintenance_plan import (
    SIZES,
    FileFacts,
    MaintenanceSettings,
    log_retention,
    plan_rewrites,
)
from datazone_dagster.rows.split_file import HELD_BYTES, split_file

KIND = "dataset"

CLEANED_AT = "maintain/cleaned_at"
"""Application id whose transaction version is the time of the last orphan search (Unix s)."""

_ROWS_AT_A_TIME = 1 << 16
_BYTES_AT_A_TIME = 16 << 20
"""Bounds of the sorted rows that are copied at a time."""

_JOINED_SHARE = 1 / 4
"""Share of the memory that rows being sorted may take. Together with the written rows, which stay
in memory until their row group is full, they took three and a half times as much (measured)."""


_COMMIT_SECONDS = 10.0
"""Time after which rewritten files are committed: later ones do not put them at risk."""

_ATTEMPTS = 8
"""Attempts at a commit while others commit first."""


@dataclass(frozen=True)
class _Rewritten:
    """Files, and the add actions of those that replace them; none: they had no live row."""

    files: Sequence[LiveFile]
    adds: Sequence[Action]


@dataclass
class _Done:
    """Work done so far by one run of maintenance."""

    files_joined: int = 0
    files_written: int = 0
    rows_dropped: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    checkpoint: bool = False
    files_deleted: int = 0
    lost_race: bool = False


def maintain(
    layout: Layout,
    dataset_id: str,
    settings: MaintenanceSettings,
    now: datetime,
    *,
    order_by: str = KEY,
    memory_bytes: int | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    share: Share = ALL_FILES,
) -> MaintenanceReport | None:
    """Do the maintenance that is due, within the budgets; None if the dataset has no table.

    Args:
        layout: Layout of the lakehouse.
        dataset_id: The dataset.
        settings: Thresholds and budgets.
        now: The current time, for the retention.
        order_by: Column by which joined rows are sorted.
        memory_bytes: Memory that maintenance may take; no more files are joined than fit. None:
            `group_bytes` is the only bound of files that are joined.
        monotonic: Monotonic clock in seconds, for the time budget.
        share: Files that are maintained, in a table with buckets.

    Raises:
        StorageError: The store failed; the table is unchanged, or some pieces are done.
    """
    table = opened(layout.dataset(dataset_id), layout.storage_options, KIND)
    if table is None:
        return None
    return maintain_table(
        table,
        settings,
        now,
        order_by=order_by,
        memory_bytes=memory_bytes,
        monotonic=monotonic,
        share=share,
        doing=f"Maintaining dataset {dataset_id!r}",
    )


def maintain_table(
    table: Table,
    settings: MaintenanceSettings,
    now: datetime,
    *,
    order_by: str | None,
    memory_bytes: int | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    share: Share = ALL_FILES,
    doing: str,
) -> MaintenanceReport:
    """Do the maintenance of an open table that is due; arguments and errors as for `maintain`.

    Args:
        table: The table.
        settings: As for `maintain`.
        now: As for `maintain`.
        order_by: As for `maintain`; None: joined rows stay in the order of their files.
        memory_bytes: As for `maintain`.
        monotonic: As for `maintain`.
        share: As for `maintain`.
        doing: Description of the operation, for errors.
    """
    started_seconds = monotonic()
    run = _Run(table, settings, now, order_by, memory_bytes, share)
    with guarded(table.uri, doing):
        try:
            run.rewrite(started_seconds + settings.budget_seconds, monotonic)
            run.shorten_log()
        except (LostRaceError, ConcurrentWriterError, CommitFailedError):
            run.done.lost_race = True
            table.refresh()
        snapshot = table.at
    return MaintenanceReport(
        files=len(snapshot.files),
        size_bytes=sum(file.size_bytes for file in snapshot.files),
        rows=snapshot.live_rows,
        hidden_rows=snapshot.deleted_rows,
        duration_seconds=monotonic() - started_seconds,
        **asdict(run.done),
    )


class _Run:
    """One run of maintenance on one table."""

    def __init__(
        self,
        table: Table,
        settings: MaintenanceSettings,
        now: datetime,
        order_by: str | None,
        memory_bytes: int | None,
        share: Share,
    ) -> None:
        self.done = _Done()
        self._share = share
        self._table = table
        self._settings = settings
        self._now = now
        self._order_by = order_by
        self._most_bytes = None if memory_bytes is None else int(memory_bytes * _JOINED_SHARE)

    def rewrite(self, until_seconds: float, monotonic: Callable[[], float]) -> None:
        """Join and purge files, all in one commit, or one per `_COMMIT_SECONDS` of work."""
        snapshot = self._table.at
        if why_not(snapshot) is not None:
            self._compact_by_delta_rs(snapshot)
            return
        files = [file for file in snapshot.files if self._share.has(file)]
        facts = [_facts(snapshot, file, self._share.tag_of(file)) for file in files]
        plans = plan_rewrites(facts, self._settings)
        splits = [file for file in snapshot.files if self._share.splits(file)]
        works: list[Callable[[], _Rewritten | None]] = [
            *(partial(self._split, snapshot, file) for file in splits),
            *(partial(self._rewritten, snapshot, [files[at] for at in one.files]) for one in plans),
        ]
        begun_seconds, rewrites = monotonic(), list[_Rewritten]()
        for number, work in enumerate(works):
            if number and monotonic() >= until_seconds:
                break
            rewritten = work()
            rewrites += [] if rewritten is None else [rewritten]
            if monotonic() - begun_seconds >= _COMMIT_SECONDS:
                self._commit(rewrites)
                begun_seconds, rewrites = monotonic(), []
        self._commit(rewrites)

    def _rewritten(self, snapshot: Snapshot, files: Sequence[LiveFile]) -> _Rewritten | None:
        """Write one file, or join as many files as fit in memory; fewer than two are not joined."""
        schema = snapshot.schema
        if len(files) > 1:
            files, rows = self._read_together(snapshot, files, schema)
            if len(files) < 2:
                return None
            batches = self._sorted(rows)
        else:
            batches = _rows_of(snapshot, files[0], schema)
        rows_left = sum(snapshot.rows_in(file) - file.deleted for file in files)
        indexed = KEPT_INDEXES.moved(snapshot, files, rows_left)
        add = write_data_file(
            snapshot.store,
            schema,
            files[0].partition_values,
            batches if indexed is None else indexed.passing(batches),
            data_change=False,
            plain_columns=(KEY, VERSION),
        )
        if add is not None and indexed is not None:
            KEPT_INDEXES.written(snapshot, LiveFile(add, None), indexed)
        tags = {tag_in(file) for file in files}
        tag = tags.pop() if len(tags) == 1 else self._share.tag_of(files[0])
        return _Rewritten(files, [] if add is None else [tagged(add, tag)])

    def _split(self, snapshot: Snapshot, file: LiveFile) -> _Rewritten:
        held_bytes = HELD_BYTES if self._most_bytes is None else min(HELD_BYTES, self._most_bytes)
        return _Rewritten([file], split_file(snapshot, file, self._share.buckets, held_bytes))

    def _read_together(
        self, snapshot: Snapshot, files: Sequence[LiveFile], schema: pa.Schema
    ) -> tuple[list[LiveFile], pa.Table]:
        """Read the smallest of these files, as many as fit in memory; return them and their rows.

        The memory that a file takes is known only once it is read.
        """
        fitting: list[LiveFile] = []
        batches: list[pa.RecordBatch] = []
        read_bytes = 0
        for file in sorted(files, key=lambda file: file.size_bytes):
            earlier_batches = len(batches)
            for batch in _rows_of(snapshot, file, schema):
                batches.append(batch)
                read_bytes += batch.nbytes
                if self._most_bytes is not None and read_bytes > self._most_bytes:
                    return fitting, _one_chunk(batches[:earlier_batches], schema)
            fitting.append(file)
        return fitting, _one_chunk(batches, schema)

    def _commit(self, rewrites: Sequence[_Rewritten]) -> None:
        """Commit rewritten files, also after others, if they changed none of these files."""
        if not rewrites:
            return
        crash_points.reach(crash_points.AFTER_DATA_FILES)
        adds = [add for one in rewrites for add in one.adds]
        removes = [file for one in rewrites for file in one.files]
        schema_text, written_seconds = self._table.at.schema_text, time.monotonic()
        for attempts_left in reversed(range(_ATTEMPTS)):
            try:
                after = commit_files(
                    self._table.at,
                    FileActions(adds=adds, removes=removes, data_change=False),
                    operation="OPTIMIZE",
                    parameters={"predicate": "[]"},
                    metrics={"numRemovedFiles": len(removes), "numAddedFiles": len(adds)},
                )
                break
            except (LostRaceError, ConcurrentWriterError):
                self._table.refresh()
                at = self._table.at
                is_as_read = at.schema_text == schema_text and why_not(at) is None
                is_fresh = time.monotonic() - written_seconds < FRESH_SECONDS
                if not (attempts_left and is_as_read and is_fresh and _has_all(at, removes)):
                    at.store.delete(LiveFile(add, None).path for add in adds)
                    raise
        self._table.move_to(after)
        for one in rewrites:
            self.done.files_joined += len(one.files) if len(one.files) > 1 else 0
        self.done.files_written += len(adds)
        self.done.bytes_written += sum(add["size"] for add in adds)
        self.done.bytes_read += sum(file.size_bytes for file in removes)
        self.done.rows_dropped += sum(file.deleted for file in removes)

    def _sorted(self, rows: pa.Table) -> Iterator[pa.RecordBatch]:
        """Yield the rows of several files in order, so that row groups have narrow key bounds."""
        if self._order_by is None:
            yield from rows.to_batches(_ROWS_AT_A_TIME)
            return
        order = pc.sort_indices(rows, sort_keys=[(self._order_by, "ascending")])
        row_bytes = rows.nbytes // max(len(rows), 1) + 1
        step = min(_ROWS_AT_A_TIME, _BYTES_AT_A_TIME // row_bytes + 1)
        for start in range(0, len(rows), step):
            yield from rows.take(order.slice(start, step)).combine_chunks().to_batches()

    def _compact_by_delta_rs(self, snapshot: Snapshot) -> None:
        """Compact a table whose rules our commits do not support, such as a change data feed."""
        facts = [_facts(snapshot, file, tag_in(file)) for file in snapshot.files]
        small = [file for file in facts if file.size_bytes < SIZES[-1]]
        if len(small) < self._settings.join_files:
            return
        with self._table.by_delta_rs() as handle:
            metrics = handle.optimize.compact(
                target_size=SIZES[-1], max_concurrent_tasks=1, commit_properties=_NO_RETRY
            )
        self.done.files_joined += metrics["numFilesRemoved"]
        self.done.files_written += metrics["numFilesAdded"]

    def shorten_log(self) -> None:
        """Checkpoint the log, and once per `clean_every` delete what nothing needs any more."""
        if not checkpoint_due(self._table.at, self._settings.checkpoint_commits):
            return
        cleaned_at = self._table.transaction(CLEANED_AT)
        cleans = self._now.timestamp() - cleaned_at >= self._settings.clean_every.total_seconds()
        if cleans:
            self._clean(self._table.at)
        self._table.at = make_checkpoint(self._table.kept, self._table.at)
        self.done.checkpoint = True
        if cleans:
            clean_log(self._table.at, log_retention(self._table.properties, self._settings))

    def _clean(self, snapshot: Snapshot) -> None:
        """Delete files that no version has, and announce it before: a commit that was based on an
        earlier version may add one of them, and is refused from then on.
        """
        paths = orphan_files(snapshot, self._now - self._settings.retention)
        commits = why_not(snapshot) is None
        if commits and paths:
            self._note("VACUUM START", {}, {"numFilesToDelete": len(paths)})
        crash_points.reach(crash_points.BEFORE_CLEANING)
        snapshot.store.delete(paths)
        self.done.files_deleted += len(paths)
        if commits:
            cleaned_at = Transaction(CLEANED_AT, int(self._now.timestamp()))
            deleted = {"numDeletedFiles": len(paths)}
            self._note("VACUUM END", {"status": "COMPLETED"}, deleted, cleaned_at)

    def _note(
        self,
        operation: str,
        parameters: Mapping[str, str],
        metrics: Mapping[str, int],
        *marks: Transaction,
    ) -> None:
        """Commit an entry without files on top of the version that was looked at."""
        after = commit_files(
            self._table.at,
            FileActions(adds=[], removes=[], data_change=False),
            operation=operation,
            parameters=parameters,
            metrics=metrics,
            properties=CommitProperties(app_transactions=list(marks)),
        )
        self._table.move_to(after)


_NO_RETRY = CommitProperties(max_commit_retries=0)


def _has_all(snapshot: Snapshot, files: Sequence[LiveFile]) -> bool:
    """Return whether these files are in the table with the same deleted rows."""
    return all(file.identity in snapshot.by_identity for file in files)


def _rows_of(snapshot: Snapshot, file: LiveFile, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    return live_batches(snapshot, file, schema, snapshot.deleted_in(file))


def _one_chunk(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """Combine batches into one chunk: otherwise every `take` on the table would do so again."""
    return pa.Table.from_batches(batches, schema).combine_chunks()


def _facts(snapshot: Snapshot, file: LiveFile, tag: str | None) -> FileFacts:
    return FileFacts(
        size_bytes=file.size_bytes,
        rows=snapshot.rows_in(file),
        hidden=file.deleted,
        partition=(*sorted(file.partition_values.items()), (TAG, tag)),
    )
