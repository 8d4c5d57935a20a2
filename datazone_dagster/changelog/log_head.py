"""The head of the change log at one version of its table, and the commits on top of it.

Two kinds of batches share one numbering: those of the drain, and those of a snapshot's scan. Two
drains must never both commit (invariant 3). A scan is no other drain: its rows move no position,
so a batch that lost the commit race to scan batches only takes the next free number instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

from datazone_dagster.changelog.files import renumbered
from datazone_dagster.changelog.log_errors import overtaken_error
from datazone_dagster.changelog.schema import SCHEMA
from datazone_dagster.delta import CHECKPOINT_EVERY, transaction, transactions
from datazone_dagster.delta.commit import FileActions, LostRaceError, commit_files, why_not
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.transaction_log import read_snapshot
from datazone_dagster.errors import ConcurrentWriterError, StorageError
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.snapshot_state import PROPERTY, SnapshotState
from datazone_dagster.model.source_identity import PROPERTY as OWNER_PROPERTY
from datazone_dagster.process import crash_points

AWAITED_PROPERTY = "datazone.drain_awaited"
"""Table property with a time that an audit waits for the drain to pass."""

ATTEMPTS = 30
"""Number of attempts at one commit while only batches of the other kind come first."""


@dataclass(frozen=True, slots=True)
class _Fence:
    """What a batch of the drain is based on; the batches of a scan change nothing of it."""

    drained: int
    epoch: int
    owner: str | None


class LogHead:
    """Number of the last batch, and the commits of the next one.

    Args:
        table: Handle of the change log, shared with the caller.
        storage_options: Options of the table's store.
        source: Name of the source.
    """

    number: int

    def __init__(self, table: DeltaTable, storage_options: Mapping[str, str], source: str) -> None:
        self._table = table
        self._storage_options = storage_options
        self._store = TableStore(table.table_uri, storage_options)
        self._app_id = f"drain/{source}"
        self._scan_app_id = f"scan/{source}"
        self.read()

    def read(self) -> None:
        """Take over what the handle is at."""
        self.number = self._last(self._app_id)
        self._fence = self._fence_now()
        self._state_text = self._state_now()

    @property
    def snapshot(self) -> SnapshotState | None:
        """The last snapshot of the source; None if there never was one."""
        text = self._state_now()
        return None if text is None else SnapshotState.from_json(text)

    @property
    def drain_must_pass(self) -> datetime | None:
        """Latest time that a snapshot or an audit waits for the drain to pass; None: no such."""
        text = self._table.metadata().configuration.get(AWAITED_PROPERTY)
        state = self.snapshot
        awaited = [
            None if text is None else datetime.fromisoformat(text),
            None if state is None else state.drain_must_pass,
        ]
        return max(filter(None, awaited), default=None)

    def set_own_property(self, name: str, value: str) -> None:
        """Take over a property that the owner of this head has committed itself."""
        if name == OWNER_PROPERTY:
            self._fence = _Fence(self._fence.drained, self._fence.epoch, value)

    def append(self, file: AddAction, batch: int) -> int:
        """Commit a batch of the drain, `number + 1` as of `read` or later.

        Returns:
            Number of the batch: higher than `batch` if a scan landed batches meanwhile.

        Raises:
            ConcurrentWriterError: Another drain landed a batch, or the epoch was raised.
            CommitFailedError: As above, reported by delta-rs.
            OSError: The store failed.
        """
        for attempts_left in reversed(range(ATTEMPTS)):
            try:
                self._require_own()
                self._append(file, batch)
                break
            except (CommitFailedError, ConcurrentWriterError):
                if not attempts_left or not self.pass_scans():
                    raise
            batch = self.number + 1
            file = self._renumbered(file, batch)
        # The handle does not see its own commit. Loading the newest version instead could
        # bring in a batch of another drain, which the next append would take for its own.
        self._table.load_as_version(self._table.version() + 1)
        self.read()
        return batch

    def pass_scans(self) -> bool:
        """Advance to the newest version if only a snapshot has made progress since.

        Returns:
            Whether it has. False leaves `number` as it was, so that `append` raises.
        """
        known = self._state_text
        self._table.update_incremental()
        if self._fence_now() != self._fence or self._state_now() == known:
            return False
        self.read()
        return True

    def land_scan(
        self,
        file: AddAction | None,
        before: SnapshotState | None,
        after: SnapshotState,
        *,
        only_now: bool = False,
    ) -> int:
        """Commit a batch of a scan together with the state that it leads to.

        The handle is at the newest version afterwards.

        Args:
            file: File of the batch `number + 1`; None if the state alone changes.
            before: State that the batch is based on.
            after: State after the batch; its `last_scan_batch` is set here.
            only_now: Whether any other commit since `read` makes the attempt fail.

        Returns:
            Number of the last batch of the scan.

        Raises:
            ConcurrentWriterError: The state is not `before`: another process scans, or the
                snapshot began again.
            StorageError: The store failed; the state in the log shows whether the batch landed.
        """
        table, batch = self._table, self.number + 1
        for attempts_left in reversed(range(1 if only_now else ATTEMPTS)):
            if self.snapshot != before:
                self._delete(file)
                raise _other_scan(table.table_uri)
            try:
                last = after.last_scan_batch if file is None else batch
                self._put_scan(file, replace(after, last_scan_batch=last))
                break
            except (LostRaceError, ConcurrentWriterError) as lost:
                if not attempts_left:
                    self._delete(file)
                    raise _never_first(table.table_uri) from lost
            table.update_incremental()
            self.read()
            if file is not None and batch != self.number + 1:
                batch = self.number + 1
                file = self._renumbered(file, batch)
        table.update_incremental()
        self.read()
        if table.version() % CHECKPOINT_EVERY == 0:  # delta-rs does that for its own commits only
            table.create_checkpoint()
            table.cleanup_metadata()
        return last

    def _put_scan(self, file: AddAction | None, state: SnapshotState) -> None:
        snapshot = read_snapshot(self._table, self._storage_options)
        rule = why_not(snapshot)
        if rule is not None:
            raise StorageError(
                f"The change log at {self._table.table_uri} can't take the rows of a snapshot: "
                f"{rule}.",
                safe="Nothing was landed; the drain goes on.",
                hint='Use a store with conditional writes, or DynamoDBSource(start="trim_horizon") '
                'or start="latest", which need no snapshot.',
            )
        versions = {self._app_id: self.number + 1, self._scan_app_id: self._scans() + 1}
        commit_files(
            snapshot,
            FileActions([] if file is None else [_add(file)], []),
            operation="WRITE",
            parameters={"mode": "Append", "partitionBy": f'["{Log.BUCKET}"]'},
            metrics={},
            properties=None if file is None else transactions(versions),
            table_properties={PROPERTY: state.to_json()},
        )

    def _append(self, file: AddAction, batch: int) -> None:
        self._table.create_write_transaction(
            [file],
            mode="append",
            schema=SCHEMA,
            partition_by=[Log.BUCKET],
            commit_properties=transaction(self._app_id, batch),
        )

    def _require_own(self) -> None:
        """Check that the handle has no batch of another drain: some commits move it past others.

        Raises:
            ConcurrentWriterError: Another drain landed a batch since `read`.
        """
        landed = self._last(self._app_id)
        if landed != self.number:
            raise overtaken_error(self._table.table_uri, self.number, landed)

    def _renumbered(self, file: AddAction, batch: int) -> AddAction:
        new = renumbered(self._store, file, batch)
        self._delete(file)
        crash_points.reach(crash_points.AFTER_RENUMBERING)
        return new

    def _delete(self, file: AddAction | None) -> None:
        """Delete a file that no commit names; maintenance finds one that stays."""
        if file is not None:
            with suppress(OSError):
                self._store.delete([file.path])

    def _fence_now(self) -> _Fence:
        state = self.snapshot
        return _Fence(
            self._last(self._app_id) - self._scans(),
            0 if state is None else state.epoch,
            self._table.metadata().configuration.get(OWNER_PROPERTY),
        )

    def _state_now(self) -> str | None:
        text: str | None = self._table.metadata().configuration.get(PROPERTY)
        return text

    def _scans(self) -> int:
        return self._last(self._scan_app_id)

    def _last(self, app_id: str) -> int:
        return self._table.transaction_version(app_id) or 0


def _add(file: AddAction) -> dict[str, object]:
    """Return the value of an add action."""
    return {
        "path": file.path,
        "partitionValues": dict(file.partition_values),
        "size": file.size,
        "modificationTime": file.modification_time,
        "dataChange": file.data_change,
        "stats": file.stats,
    }


def _other_scan(uri: str) -> ConcurrentWriterError:
    return ConcurrentWriterError(
        f"Another process has moved the snapshot in the change log at {uri} on.",
        safe="Nothing of this attempt counts; what the other process landed is in the change log.",
        hint="Let one process take the snapshot; this one continues from the new state.",
    )


def _never_first(uri: str) -> ConcurrentWriterError:
    return ConcurrentWriterError(
        f"Other commits to the change log at {uri} came first {ATTEMPTS} times in a row.",
        safe="Nothing of this attempt counts; the snapshot continues after its last commit.",
        hint="Check for a process that commits to this table without a pause.",
    )
