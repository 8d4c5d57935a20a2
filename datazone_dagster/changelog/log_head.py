"""The head of the change log at one version of its table, and the commits on top of it.

Two kinds of batches share one numbering: those of the drain, and those of a snapshot's scan. Two
drains must never both commit (invariant 3). A scan is no other drain: its rows move no position,
so a batch that lost the commit race to scan batches only takes the next free number instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

import pyarrow as pa
from deltalake.transaction import AddAction

from datazone_dagster.changelog.files import add_action, renumbered
from datazone_dagster.changelog.landed_notes import note_of
from datazone_dagster.changelog.log_errors import (
    never_first_error,
    other_scan_error,
    overtaken_error,
)
from datazone_dagster.changelog.numbering import BY_COMMIT, is_numbered, with_optional_number
from datazone_dagster.changelog.scan_commits import only_scanned_since
from datazone_dagster.changelog.set_commits import ATTEMPTS as SET_ATTEMPTS
from datazone_dagster.changelog.set_commits import SetBatch
from datazone_dagster.delta import LostRaceError, transactions
from datazone_dagster.delta.commit import FileActions, commit_files, why_not
from datazone_dagster.delta.log_upkeep import NO_CLEANING
from datazone_dagster.delta.table_state import KeptTable
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.errors import ConcurrentWriterError, StorageError
from datazone_dagster.model.checkpoint import Landed
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.snapshot_state import PROPERTY, SnapshotState
from datazone_dagster.model.source_identity import PROPERTY as OWNER_PROPERTY
from datazone_dagster.process import crash_points

AWAITED_PROPERTY = "datazone.drain_awaited"
"""Table property with a time that an audit waits for the drain to pass."""

ATTEMPTS = 30
"""Number of attempts at one commit while only batches of the other kind come first."""


@dataclass(frozen=True, slots=True)
class Fence:
    """What a batch of the drain is based on; the batches of a scan change nothing of it."""

    drained: int
    epoch: int
    owner: str | None

    def allows(self, based_on: Fence) -> bool:
        """Return whether a batch with this base may be the next one.

        The owner may have been stored since by the drain itself; another owner loses the race.
        """
        return (self.drained, self.epoch) == (based_on.drained, based_on.epoch)


class LogHead:
    """Number of the last batch, and the commits of the next one.

    Args:
        table: The change log.
        at: Version of it that commits are based on.
        source: Name of the source.
    """

    number: int

    def __init__(self, table: KeptTable, at: Snapshot, source: str) -> None:
        self._table = table
        self.source = source
        self._app_id = f"drain/{source}"
        self._scan_app_id = f"scan/{source}"
        self.move_to(at)

    def move_to(self, at: Snapshot) -> None:
        """Take over a version of the change log, whoever committed since the last one."""
        self.at = at
        self.number = at.transaction(self._app_id)
        self.fence = self._fence_in(at)

    @property
    def snapshot(self) -> SnapshotState | None:
        """The last snapshot of the source; None if there never was one."""
        return _state_in(self.at)

    @property
    def drain_must_pass(self) -> datetime | None:
        """Latest time that a snapshot or an audit waits for the drain to pass; None: no such."""
        text = self.at.configuration.get(AWAITED_PROPERTY)
        state = self.snapshot
        awaited = [
            None if text is None else datetime.fromisoformat(text),
            None if state is None else state.drain_must_pass,
        ]
        return max(filter(None, awaited), default=None)

    def set_property(self, name: str, value: str) -> None:
        """Store a table property on top of `at`; batches of a scan may come first.

        Raises:
            ConcurrentWriterError: Another commit came first.
            StorageError: The store failed.
        """
        for attempts_left in reversed(range(ATTEMPTS)):
            try:
                self._set_property(name, value)
                return
            except (LostRaceError, ConcurrentWriterError):
                if not attempts_left or not (self.pass_scans() or self._passes_drains(name)):
                    raise

    def _set_property(self, name: str, value: str, schema: pa.Schema | None = None) -> None:
        self.move_to(
            self._table.took(
                commit_files(
                    self._writable(self.at),
                    FileActions([], []),
                    operation="SET TBLPROPERTIES",
                    parameters={"properties": name},
                    metrics={},
                    table_properties={**NO_CLEANING, name: value},
                    new_schema=schema,
                )
            )
        )

    def append(
        self,
        file: AddAction,
        batch: int,
        based_on: Fence,
        landed: Sequence[Landed] | None = None,
    ) -> int:
        """Commit a batch of the drain.

        Args:
            file: File of the batch.
            batch: Number of its rows: `number + 1` as of `based_on`.
            based_on: Fence when the batch was begun.
            landed: Positions that the batch reaches, for the note of the commit.

        Returns:
            Number of the batch: higher than `batch` if a scan landed batches meanwhile.

        Raises:
            ConcurrentWriterError: Another drain landed a batch, or the epoch was raised.
            LostRaceError: Another commit came first.
            StorageError: The store failed.
        """
        for attempts_left in reversed(range(ATTEMPTS)):
            if not self.fence.allows(based_on):
                raise overtaken_error(self._table.uri, batch - 1, self.number)
            if batch != self.number + 1:
                batch = self.number + 1
                file = self._renumbered(file, batch)
            try:
                self.move_to(self._table.took(self._append(file, batch, landed)))
                return batch
            except (LostRaceError, ConcurrentWriterError):
                if not attempts_left or not self.pass_scans():
                    raise
        raise AssertionError("unreachable")

    def append_of_set(self, file: AddAction, of_set: SetBatch, landed: Sequence[Landed]) -> int:
        """Commit a batch of one set of shards, after those of other shards that came first.

        Args:
            file: File of the batch, without numbers.
            of_set: The set, and the version that the batch is based on.
            landed: Positions that the batch reaches, for the note of the commit.

        Returns:
            Number of the batch.

        Raises:
            ConcurrentWriterError: A commit that came first concerns the shards of this batch.
            StorageError: The store failed.
        """
        at = of_set.based_on
        for _ in range(SET_ATTEMPTS):
            of_set.check_age(self._table.uri)
            batch = at.transaction(self._app_id) + 1
            try:
                at = self._append(file, batch, landed, at, {of_set.app_id: batch})
            except (LostRaceError, ConcurrentWriterError):
                moved = of_set.after_others(at, landed)
                if moved is at:  # nobody came first: it is another table now
                    raise
                at = moved
            else:
                of_set.check_age(self._table.uri)
                self.move_to(self._table.took(at))
                return batch
        raise LostRaceError(f"others were faster {SET_ATTEMPTS} times at {self._table.uri}")

    def number_by_commit(self) -> None:
        """Set the property `BY_COMMIT`, and let the column of the number be null.

        Raises:
            ConcurrentWriterError: Another commit came first.
            StorageError: The store failed.
        """
        for attempts_left in reversed(range(ATTEMPTS)):
            if BY_COMMIT in self.at.configuration:
                return
            try:
                self._set_property(BY_COMMIT, "true", with_optional_number(self.at.schema))
            except (LostRaceError, ConcurrentWriterError):
                if not attempts_left:
                    raise
                self.move_on()

    def pass_scans(self) -> bool:
        """Advance to the newest version if only a snapshot has made progress since.

        Returns:
            Whether it has. False leaves the head as it was, so that the next commit loses.
        """
        newest = self._table.now()
        if newest is None or self._fence_in(newest) != self.fence:
            return False
        if not only_scanned_since(self.at, newest):
            return False
        self.move_to(newest)
        return True

    def _passes_drains(self, name: str) -> bool:
        """As `pass_scans`, past batches of several drains, if nobody has set this property since.

        A batch is fenced by the version that it is based on, not by this one.
        """
        newest, at = self._table.now(), self.at
        if newest is None or BY_COMMIT not in newest.configuration or newest.version == at.version:
            return False
        before, now = self.fence, self._fence_in(newest)
        if newest.metadata.get("id") != at.metadata.get("id"):  # made again
            return False
        if (now.epoch, now.owner) != (before.epoch, before.owner):
            return False
        if newest.configuration.get(name) != at.configuration.get(name):
            return False
        self.move_to(newest)
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

        The head is at the newest version afterwards.

        Args:
            file: File of the batch `number + 1`; None if the state alone changes.
            before: State that the batch is based on.
            after: State after the batch; its `last_scan_batch` is set here.
            only_now: Whether any other commit since `at` makes the attempt fail.

        Returns:
            Number of the last batch of the scan.

        Raises:
            ConcurrentWriterError: The state is not `before`: another process scans, or the
                snapshot began again.
            StorageError: The store failed; the state in the log shows whether the batch landed.
        """
        batch = self.number + 1
        for attempts_left in reversed(range(1 if only_now else ATTEMPTS)):
            if self.snapshot != before:
                self._delete(file)
                raise other_scan_error(self._table.uri)
            try:
                last = after.last_scan_batch if file is None else batch
                self._put_scan(file, replace(after, last_scan_batch=last))
                break
            except (LostRaceError, ConcurrentWriterError) as lost:
                if not attempts_left:
                    self._delete(file)
                    raise never_first_error(self._table.uri, ATTEMPTS) from lost
            self.move_on()
            if file is not None and batch != self.number + 1:
                batch = self.number + 1
                file = self._renumbered(file, batch)
        self.move_on()
        return last

    def move_on(self, *, ask: bool = True) -> None:
        """Advance to the newest version, whoever committed since.

        Args:
            ask: Whether to ask the store, not only what the process knows of the table.

        Raises:
            StorageError: The store failed, or the table is gone; the head is as it was.
        """
        newest = (None if ask else self._table.known()) or self._table.now()
        if newest is None:
            raise StorageError(
                f"The change log at {self._table.uri} is gone.",
                safe="Nothing was written.",
                hint="Restore it from a backup; a new one starts at the trim horizon.",
            )
        self.move_to(newest)

    def _put_scan(self, file: AddAction | None, state: SnapshotState) -> None:
        versions = {self._app_id: self.number + 1, self._scan_app_id: self._scans_in(self.at) + 1}
        self._table.took(
            commit_files(
                self._writable(self.at),
                FileActions([] if file is None else [add_action(file, self.number + 1)], []),
                operation="WRITE",
                parameters={"mode": "Append", "partitionBy": f'["{Log.BUCKET}"]'},
                metrics={},
                properties=None if file is None else transactions(versions),
                table_properties={PROPERTY: state.to_json()},
                note=None if file is None else note_of(self.number + 1, ()),
            )
        )

    def _append(
        self,
        file: AddAction,
        batch: int,
        landed: Sequence[Landed] | None,
        at: Snapshot | None = None,
        of_set: Mapping[str, int] | None = None,
    ) -> Snapshot:
        """Put the next entry after `at`: it exists at most once, so a batch lands at most once."""
        return commit_files(
            self._writable(at or self.at),
            FileActions([add_action(file, batch)], []),
            operation="WRITE",
            parameters={"mode": "Append", "partitionBy": f'["{Log.BUCKET}"]'},
            metrics={},
            properties=transactions({self._app_id: batch, **(of_set or {})}),
            note=None if landed is None else note_of(batch, landed),
        )

    def _writable(self, at: Snapshot) -> Snapshot:
        """Return a version, if its table has no rule that a commit of ours would break.

        Raises:
            StorageError: It has such a rule.
        """
        rule = why_not(at)
        if rule is not None:
            raise StorageError(
                f"The change log at {self._table.uri} can't be written: {rule}.",
                safe="Nothing was landed; DynamoDB keeps the changes for 24 hours.",
                hint="Nobody else may change the table or its properties: take the change back. "
                "The store must have conditional writes.",
            )
        return at

    def _renumbered(self, file: AddAction, batch: int) -> AddAction:
        if not is_numbered(file):
            return file
        new = renumbered(self._table.store, file, batch)
        self._delete(file)
        crash_points.reach(crash_points.AFTER_RENUMBERING)
        return new

    def _delete(self, file: AddAction | None) -> None:
        """Delete a file that no commit names; maintenance finds one that stays."""
        if file is not None:
            with suppress(OSError):
                self._table.store.delete([file.path])

    def _fence_in(self, at: Snapshot) -> Fence:
        state = _state_in(at)
        return Fence(
            at.transaction(self._app_id) - self._scans_in(at),
            0 if state is None else state.epoch,
            at.configuration.get(OWNER_PROPERTY),
        )

    def _scans_in(self, at: Snapshot) -> int:
        return at.transaction(self._scan_app_id)


def _state_in(at: Snapshot) -> SnapshotState | None:
    text = at.configuration.get(PROPERTY)
    return None if text is None else SnapshotState.from_json(text)
