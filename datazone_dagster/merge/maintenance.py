"""Keeps a dataset's table quick to read: fewer files, no hidden rows, a short log, no leftovers.

Done after a merge, by the one writer of the table, a bounded piece at a time. Nothing of it
changes a row; readers of older versions find their files for the retention. Another commit
that comes first wins, and the piece is done another time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError

from datazone_dagster import crash_points
from datazone_dagster.delta import guarded, open_table
from datazone_dagster.delta.commit import FileActions, LostRaceError, commit_files, why_not
from datazone_dagster.delta.data_file import write_data_file
from datazone_dagster.delta.leftovers import leftovers
from datazone_dagster.delta.log import LiveFile, Snapshot, read_snapshot
from datazone_dagster.delta.read_file import live_batches
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.merge.maintenance_plan import (
    SIZES,
    FileFacts,
    MaintenanceSettings,
    plan_rewrites,
)
from datazone_dagster.model.columns import KEY, VERSION
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import MaintenanceReport

KIND = "dataset"

CLEANED_AT = "maintain/cleaned_at"
"""The application whose transaction version is when leftovers were last looked for (Unix s)."""

_ROWS_AT_A_TIME = 1 << 16


@dataclass
class _Done:
    """What one run of maintenance did so far."""

    files_joined: int = 0
    files_written: int = 0
    rows_dropped: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    checkpoint: bool = False
    files_deleted: int = 0
    gave_way: bool = False


def maintain(
    layout: Layout,
    dataset_id: str,
    settings: MaintenanceSettings,
    now: datetime,
    *,
    order_by: str = KEY,
    monotonic: Callable[[], float] = time.monotonic,
) -> MaintenanceReport | None:
    """Do what is due for a dataset's table, within the budgets; None if it has no table.

    Args:
        layout: Of the lakehouse.
        dataset_id: The dataset.
        settings: What is due, and how much may be done.
        now: The time, for the retention.
        order_by: The column by which joined rows are sorted.
        monotonic: Seconds, for the budget.

    Raises:
        StorageError: The store failed; the table is as it was, or a piece further.
    """
    started_seconds = monotonic()
    options = dict(layout.storage_options)
    uri = layout.dataset(dataset_id)
    table = open_table(uri, options, KIND)
    if table is None:
        return None
    run = _Run(table, options, settings, now, order_by)
    with guarded(uri, f"Maintaining dataset {dataset_id!r}"):
        try:
            run.rewrite(lambda: monotonic() - started_seconds >= settings.budget_seconds)
            run.shorten_log()
        except (LostRaceError, ConcurrentWriterError, CommitFailedError):
            run.done.gave_way = True
        snapshot = run.read()
    return MaintenanceReport(
        files=len(snapshot.files),
        size_bytes=sum(file.size_bytes for file in snapshot.files),
        rows=snapshot.live_rows,
        hidden_rows=snapshot.deleted_rows,
        duration_seconds=monotonic() - started_seconds,
        **asdict(run.done),
    )


class _Run:
    """One run on one table."""

    def __init__(
        self,
        table: DeltaTable,
        options: dict[str, str],
        settings: MaintenanceSettings,
        now: datetime,
        order_by: str,
    ) -> None:
        self.done = _Done()
        self._table = table
        self._options = options
        self._settings = settings
        self._now = now
        self._order_by = order_by

    def read(self) -> Snapshot:
        """The table as it is now."""
        self._table.update_incremental()
        return read_snapshot(self._table, self._options)

    def rewrite(self, is_late: Callable[[], bool]) -> None:
        """Join and purge files, one commit each: what is done is done, whatever comes next."""
        snapshot = read_snapshot(self._table, self._options)
        if why_not(snapshot) is not None:
            self._compact_by_delta_rs(snapshot)
            return
        schema = pa.schema(self._table.schema().to_arrow())
        facts = [_facts(snapshot, file) for file in snapshot.files]
        for number, planned in enumerate(plan_rewrites(facts, self._settings)):
            if number and is_late():
                return
            files = [snapshot.files[at] for at in planned.files]
            version = self._replace(snapshot, files, schema)
            self.done.rows_dropped += planned.hidden_rows
            self.done.bytes_read += planned.bytes_read
            snapshot = replace(snapshot, version=version)

    def _replace(self, snapshot: Snapshot, files: Sequence[LiveFile], schema: pa.Schema) -> int:
        rows = (
            self._joined(snapshot, files, schema)
            if len(files) > 1
            else (live_batches(snapshot, files[0], schema, snapshot.deleted_in(files[0])))
        )
        add = write_data_file(
            snapshot.store,
            schema,
            files[0].partition_values,
            rows,
            data_change=False,
            plain_columns=(KEY, VERSION),
        )
        crash_points.reach(crash_points.AFTER_DATA_FILES)
        adds = [add] if add is not None else []
        version = commit_files(
            snapshot,
            FileActions(
                adds=adds,
                removes=files,
                written=[unquote(one["path"]) for one in adds],
                data_change=False,
            ),
            operation="OPTIMIZE",
            parameters={"predicate": "[]"},
            metrics={"numRemovedFiles": len(files), "numAddedFiles": len(adds)},
        )
        self.done.files_joined += len(files) if len(files) > 1 else 0
        self.done.files_written += len(adds)
        self.done.bytes_written += sum(one["size"] for one in adds)
        return version

    def _joined(
        self, snapshot: Snapshot, files: Sequence[LiveFile], schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        """The rows of several files, sorted, so that bounds and row groups tell keys apart."""
        rows = pa.Table.from_batches(
            [
                batch
                for file in files
                for batch in live_batches(snapshot, file, schema, snapshot.deleted_in(file))
            ],
            schema,
        )
        order = pc.sort_indices(rows, sort_keys=[(self._order_by, "ascending")])
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            part = rows.take(order.slice(start, _ROWS_AT_A_TIME)).combine_chunks()
            yield from part.to_batches()

    def _compact_by_delta_rs(self, snapshot: Snapshot) -> None:
        """Where a table asks for more than our commits keep to, with its change data feed say."""
        facts = [_facts(snapshot, file) for file in snapshot.files]
        small = [file for file in facts if file.size_bytes < SIZES[-1]]
        if len(small) < self._settings.join_files:
            return
        told = self._table.optimize.compact(
            target_size=SIZES[-1], max_concurrent_tasks=1, commit_properties=_NO_RETRY
        )
        self.done.files_joined += told["numFilesRemoved"]
        self.done.files_written += told["numFilesAdded"]

    def shorten_log(self) -> None:
        """Checkpoint the log, and now and then delete files that nothing refers to any more."""
        snapshot = self.read()
        since = snapshot.version - (snapshot.checkpoint_version or 0)
        if since < self._settings.checkpoint_commits:
            return
        cleaned_at = snapshot.transactions.get(CLEANED_AT, 0)
        if self._now.timestamp() - cleaned_at >= self._settings.clean_every.total_seconds():
            self._clean(snapshot)
        self._table.update_incremental()
        self._table.create_checkpoint()
        self._table.cleanup_metadata()
        self.done.checkpoint = True

    def _clean(self, snapshot: Snapshot) -> None:
        paths = leftovers(snapshot, self._now - self._settings.retention)
        snapshot.store.delete(paths)
        self.done.files_deleted += len(paths)
        if why_not(snapshot) is None:
            commit_files(
                snapshot,
                FileActions(adds=[], removes=[], data_change=False),
                operation="VACUUM END",
                parameters={"status": "COMPLETED"},
                metrics={"numDeletedFiles": len(paths)},
                properties=CommitProperties(
                    app_transactions=[Transaction(CLEANED_AT, int(self._now.timestamp()))]
                ),
            )


_NO_RETRY = CommitProperties(max_commit_retries=0)


def _facts(snapshot: Snapshot, file: LiveFile) -> FileFacts:
    return FileFacts(
        size_bytes=file.size_bytes,
        rows=snapshot.rows_in(file),
        hidden=file.deleted,
        partition=tuple(sorted(file.partition_values.items())),
    )
