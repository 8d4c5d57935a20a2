"""Waiting until the datasets show every change up to a time, while drain and runs go on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.changelog.current_checkpoint import up_to_date
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.changelog.log_errors import missing_error
from datazone_dagster.changelog.log_head import AWAITED_PROPERTY
from datazone_dagster.dataset.rows_of_keys import ShownDataset
from datazone_dagster.errors import ConcurrentWriterError, StorageError
from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.snapshot.scan import Until

ASK_AFTER_SECONDS = 5.0
"""Wait after which the drain is asked to record an idle stream as read: it does so rarely."""

_PAUSE_SECONDS = 1.0


@dataclass
class CatchingUp:
    """Waits for the drain and for runs, up to a deadline.

    Args:
        change_log: The change log of the source.
        layout: Locations of the tables.
        until: Clock, pause and stop of the audit.
        deadline_seconds: End of all waits on that clock.
        now: Clock, for a checkpoint that has to be rebuilt.
    """

    change_log: ChangeLog
    layout: Layout
    until: Until
    deadline_seconds: float
    now: Clock

    def head(self) -> int:
        """Return the number of the last batch of the change log."""
        return self.opened().head

    def opened(self) -> ChangeLogSnapshot:
        """Return the change log as it is now.

        Raises:
            StorageError: There is none, or it can't be read.
        """
        log = self.change_log.open()
        if log is None:
            raise missing_error(self.change_log.uri, self.change_log.name)
        return log

    def drained(self, at: datetime) -> int | None:
        """Wait until every change up to a time is landed.

        Returns:
            Head of the change log by then; None if the wait has ended before.
        """
        began, asked = self.until.monotonic(), False
        while True:
            # The order matters: a drain may land and save a batch between the two, and a head
            # from before it would leave out changes that its checkpoint counts as read.
            saved = CheckpointTable(self.layout, self.change_log.name).open()
            log = self.opened()
            checkpoint = up_to_date(
                Checkpoint() if saved is None else saved.checkpoint, log, self.now()
            )
            if checkpoint.has_passed(at):
                return log.head
            waited = self.until.monotonic() - began
            if not asked and waited >= ASK_AFTER_SECONDS:
                asked = self._ask(log, at)
            if self._ended():
                return None
            self.until.pause(_PAUSE_SECONDS)

    def applied(self, dataset_ids: Collection[str], head: int) -> set[str]:
        """Wait until datasets have applied every change up to a batch; return those that have."""
        behind = set(dataset_ids)
        while True:
            log = self.opened()
            for dataset_id in sorted(behind):
                position = ShownDataset(self.layout, self.change_log.name, dataset_id).position
                if position >= head or not log.has_rows(position, head):
                    behind.discard(dataset_id)
            if not behind or self._ended():
                return set(dataset_ids) - behind
            self.until.pause(_PAUSE_SECONDS)

    def _ask(self, log: ChangeLogSnapshot, at: datetime) -> bool:
        try:
            log.set_property(AWAITED_PROPERTY, at.isoformat(), "Asking the drain for its position")
        except ConcurrentWriterError:
            return False
        except StorageError:  # an audit may be allowed to read only, and then waits longer
            return True
        return True

    def _ended(self) -> bool:
        return self.until.reached() or self.until.monotonic() >= self.deadline_seconds
