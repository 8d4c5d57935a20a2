"""The two tables of a source that a drain reads and writes: checkpoint and change log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.changelog.checkpoints import CheckpointSnapshot, CheckpointTable
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.drain.outcome import ShardOutcome
from datazone_dagster.errors import StorageError
from datazone_dagster.model.checkpoint import Checkpoint, with_gap
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.source_identity import SourceIdentity
from datazone_dagster.process import crash_points


@dataclass(frozen=True, slots=True)
class Tables:
    """Checkpoint and change log of a source, at the versions that a batch is based on.

    A successful batch leaves both at its own commits, and the next batch of the tick continues
    from there. If another drain has committed meanwhile, the next batch's commit fails.
    """

    saved: CheckpointSnapshot
    log: ChangeLogSnapshot

    @classmethod
    def opened(
        cls,
        layout: Layout,
        source: DynamoDBSource,
        identify: Callable[[], SourceIdentity | None],
        *,
        shared: bool = False,
    ) -> Tables:
        """Open both tables at their newest versions.

        Args:
            layout: Locations of the tables.
            source: Source of the tables.
            identify: Returns the table that a new change log belongs to.
            shared: Whether several drains write: what others have saved is read.

        Raises:
            SourceMismatchError: The change log belongs to another table than the source.
            StorageError: A table can't be read, or the two contradict each other.
        """
        # The order matters: another drain may land and save a batch between the two.
        checkpoints = CheckpointTable(layout, source.name)
        opening = checkpoints.open_or_create if shared else checkpoints.known_or_created
        saved = opening()
        log = ChangeLog(layout, source, identify).open_or_create()
        if log.head < saved.checkpoint.batch:  # perhaps both were made again
            saved.forget()
            saved = CheckpointTable(layout, source.name).open_or_create()
        if saved.checkpoint.batch > log.head:
            at = f"The checkpoint of source {source.name!r} is at batch {saved.checkpoint.batch}"
            raise _older_log(at, source.name, log.head, layout)
        return cls(saved, log)

    def require_applied(self, layout: Layout, applied: Mapping[str, int]) -> None:
        """Check that the change log has what datasets have applied.

        Both tables may be an older copy. The next batches would get numbers that datasets have
        applied, and would be skipped.

        Args:
            layout: Locations of the tables.
            applied: Highest batch that a dataset had applied before the tables were opened, by the
                id of its change log.

        Raises:
            StorageError: A dataset has applied a batch that the log does not have.
        """
        batch, name = applied.get(self.log.table_id, 0), self.log.name
        if batch > self.log.head:
            at = f"A dataset has applied batch {batch} of source {name!r}"
            raise _older_log(at, name, self.log.head, layout)


def _older_log(at: str, source: str, head: int, layout: Layout) -> StorageError:
    return StorageError(
        f"{at}, but its change log ends at {head}.",
        safe="Nothing was read or written.",
        hint="The change log was removed, or restored from an older copy. Restore the newest "
        f"copy. If there is none, move {layout.checkpoint(source)} and {layout.change_log(source)} "
        "away to read the stream again from its trim horizon. Its datasets refuse the new "
        "change log: give them new ids then.",
    )


def record_gaps(
    saved: CheckpointSnapshot,
    planned: Checkpoint,
    outcomes: Sequence[ShardOutcome],
    now: datetime,
    save: Callable[[CheckpointSnapshot, Checkpoint], None] = CheckpointSnapshot.save,
) -> None:
    """Save gaps before the records after them land: those rows alone would move the position.

    If this process dies in between, the next drain finds the same gap again. The gap before a
    stream that replaces another is found only while no row of the new one has landed.
    """
    found = [with_gap(one.row, one.gap, now) for one in outcomes if one.gap is not None]
    replaces = bool(saved.checkpoint.shards) and saved.checkpoint.stream_arn != planned.stream_arn
    if found or replaces:
        save(saved, planned.with_shards(*found))
        crash_points.reach(crash_points.AFTER_CHECKPOINT_COMMIT)
