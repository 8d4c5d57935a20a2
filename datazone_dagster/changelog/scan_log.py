"""The change log as a snapshot sees it: its state, and the batches that it lands.

The state is a table property, and each batch of scanned rows sets it in its own commit. So a
process that dies between two commits continues exactly after the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from deltalake.transaction import AddAction

from datazone_dagster.changelog.batch_writer import BatchWriter
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.log_head import LogHead
from datazone_dagster.changelog.numbering import BY_COMMIT
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.changelog.slot_parts import ranges_in
from datazone_dagster.delta import guarded
from datazone_dagster.delta.log_upkeep import checkpoint_due, make_checkpoint
from datazone_dagster.errors import StorageError
from datazone_dagster.model.checkpoint import Landed
from datazone_dagster.model.snapshot_state import SnapshotState


class ScanLog:
    """The change log of one source, opened for a snapshot.

    Raises:
        StorageError: There is no change log, or it can't be read.
    """

    def __init__(self, change_log: ChangeLog) -> None:
        self.uri = change_log.uri
        self._table = change_log.table
        at = self._table.now()
        if at is None:
            raise StorageError(
                f"Source {change_log.name!r} has no change log at {self.uri} yet.",
                safe="Nothing was read or written.",
                hint="The first drain of the source creates it: let the drain run, then repeat.",
            )
        self._head = LogHead(self._table, at, change_log.name)

    @property
    def state(self) -> SnapshotState | None:
        """The snapshot as of the version of this handle; None if there never was one."""
        return self._head.snapshot

    @property
    def head(self) -> int:
        """Number of the last batch."""
        return self._head.number

    @property
    def version(self) -> int:
        """The table version."""
        return self._head.at.version

    def refresh(self) -> None:
        """Advance to the newest version.

        Raises:
            StorageError: The store failed.
        """
        with guarded(self.uri, "Looking for the state of the snapshot"):
            self._head.move_on()

    def move(
        self, before: SnapshotState | None, after: SnapshotState, *, only_now: bool = False
    ) -> None:
        """Replace the state.

        Args:
            before: State that the change is based on.
            after: State to store.
            only_now: Whether any other commit since the version of this handle, even one of the
                drain, makes the change invalid.

        Raises:
            ConcurrentWriterError: The state is not `before`, or another commit came first.
            StorageError: The store failed.
        """
        with guarded(self.uri, "Storing the state of the snapshot"):
            self._head.land_scan(None, before, after, only_now=only_now)
            self._make_checkpoint()

    def land(
        self, before: SnapshotState, after: SnapshotState, records: Iterable[ShardRecords]
    ) -> None:
        """Land one batch of scanned rows, once, in one commit with the state that it leads to.

        Args:
            before: State that the rows are based on.
            after: State after them.
            records: The rows; without any, the state alone changes.

        Raises:
            ConcurrentWriterError: The state is not `before`: another process moved it on.
            StorageError: The store failed; the state in the log shows whether the batch landed.
        """

        def commit(file: AddAction, _: Sequence[Landed] | None) -> int:
            return self._head.land_scan(file, before, after)

        store = self._table.store
        properties = self._head.at.configuration
        with BatchWriter(
            self.uri,
            store,
            self.head + 1,
            after.epoch,
            commit,
            by_slots=ranges_in(properties),
            by_commit=BY_COMMIT in properties,
        ) as writer:
            for shard in records:
                writer.put(shard)
            if writer.commit() is None:
                self.move(before, after)
        with guarded(self.uri, "Writing a checkpoint of the change log's table"):
            self._make_checkpoint()

    def _make_checkpoint(self) -> None:
        """Write a checkpoint if one is due: a scan may land more batches than the drain does."""
        if checkpoint_due(self._head.at):
            self._head.move_to(make_checkpoint(self._table, self._head.at))
