"""Rows of a table replaced by others, in one commit: the one way in for every mode.

A plan is made from a snapshot of the table and says which rows go and which come. How rows go
is the engine's choice: their files are rewritten without them, or a deletion vector hides them.
Another commit in between means that the table is read and the plan made again.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

import pyarrow as pa
from deltalake import CommitProperties
from pyroaring import BitMap64

from datazone_dagster.delta import guarded, vectors
from datazone_dagster.delta.commit import (
    FileActions,
    LostRaceError,
    commit_files,
    enable_vectors,
    why_not,
)
from datazone_dagster.delta.data_file import by_partition, wide_bounds, write_data_file
from datazone_dagster.delta.read_file import live_batches
from datazone_dagster.delta.transaction_log import LiveFile, Snapshot, read_snapshot
from datazone_dagster.errors import ConcurrentWriterError, StorageError
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.process import crash_points
from datazone_dagster.rows.engine import MergeTarget, Plan, RowChanges

_logger = logging.getLogger(__name__)

ATTEMPTS = 8
"""Commits of others that one change gives way to before it fails."""

HARDLY_REPEATED = (KEY, VERSION)

JOINED_BYTES = 32 << 20
"""Files are joined while they are rewritten, up to this size of what they were."""


class Removal(Enum):
    """How rows leave a table."""

    REWRITE = "rewrite"
    VECTORS = "vectors"


Choice = Callable[[Snapshot, RowChanges], Removal]


class UnsupportedRulesError(Exception):
    """The table asks writers for something that a commit of ours does not keep."""


def change_rows(
    target: MergeTarget,
    plan: Plan,
    commit: CommitProperties,
    choose: Choice,
    *,
    attempts: int = ATTEMPTS,
) -> MergeCounts:
    """Plan and commit, and again if another commit came first; the handle is then at ours.

    The commit carries `commit` even if no row changes.

    Args:
        target: The table, at the version to plan by.
        plan: Makes the changes.
        commit: What else the commit carries.
        choose: How removed rows leave.
        attempts: 1 if the plan holds for that version only.

    Raises:
        ConcurrentWriterError: Another run did the same work, the table's columns or properties
            were changed, or others are faster every time. Nothing of this is in the table.
        StorageError: The store failed.
        UnsupportedRulesError: The table was given rules that only delta-rs keeps.
    """
    lost = 0
    with guarded(target.uri, f"Changing rows of dataset {target.dataset_id!r}"):
        while lost < attempts:
            try:
                counts = _attempt(target, plan, commit, choose)
            except LostRaceError as race:
                lost += 1
                _logger.info("Dataset %s: %s.", target.dataset_id, race)
                _read_again(target, commit)
            else:
                target.table.update_incremental()
                return counts
    raise ConcurrentWriterError(
        f"Changing rows of dataset {target.dataset_id!r} at {target.uri}: another commit came "
        f"first{f' {lost} times' if lost > 1 else ''}.",
        safe="Nothing of this attempt is in the table; the other writer's work stands.",
        hint="This one gives way and goes on from the new state next time. If it happens all "
        "the time, find out who else writes: a dataset has one writer.",
    )


def _read_again(target: MergeTarget, commit: CommitProperties) -> None:
    """Bring the handle up to date, unless what came since leaves nothing to retry."""

    def known() -> tuple[str, list[int | None]]:
        ids = [one.app_id for one in commit.app_transactions or ()]
        return target.table.schema().to_json(), [
            target.table.transaction_version(app_id) for app_id in ids
        ]

    before = known()
    target.table.update_incremental()
    if known() != before:
        raise ConcurrentWriterError(
            f"Changing rows of dataset {target.dataset_id!r} at {target.uri}: another run applied "
            "the same changes, or the table's columns were changed.",
            safe="Nothing of this attempt is in the table; the other writer's work stands.",
            hint="This one gives way and goes on from the new state next time.",
        )


def _attempt(
    target: MergeTarget, plan: Plan, commit: CommitProperties, choose: Choice
) -> MergeCounts:
    snapshot = read_snapshot(target.table, target.storage_options)
    reason = why_not(snapshot)
    if reason is not None:
        raise UnsupportedRulesError(reason)
    changes = plan(snapshot)
    removal = choose(snapshot, changes)
    if removal is Removal.VECTORS and not snapshot.writes_vectors:
        snapshot = enable_vectors(snapshot)
    _commit(target, snapshot, changes, removal, commit)
    crash_points.reach(crash_points.AFTER_LOG_ENTRY)
    return changes.counts


def rewritten_bytes(snapshot: Snapshot, changes: RowChanges) -> int:
    """What a rewrite of the files with removed rows would read and write again."""
    return sum(file.size_bytes for file in snapshot.files if file.path in changes.removed)


def _commit(
    target: MergeTarget,
    snapshot: Snapshot,
    changes: RowChanges,
    removal: Removal,
    commit: CommitProperties,
) -> None:
    touched = [file for file in snapshot.files if changes.removed.get(file.path)]
    gone = {file.path: snapshot.deleted_in(file) | changes.removed[file.path] for file in touched}
    left = [file for file in touched if len(gone[file.path]) < snapshot.rows_in(file)]
    rewrites = left if removal is Removal.REWRITE else []
    adds = [
        _file_of(snapshot, group, gone, target.schema)
        for group in _groups(snapshot, changes.rows, rewrites)
    ]
    written = [LiveFile(add, None).path for add in adds]
    crash_points.reach(crash_points.AFTER_DATA_FILES)
    if removal is Removal.VECTORS:
        hidden, path = _hidden(snapshot, left, gone)
        adds += hidden
        written += path
    crash_points.reach(crash_points.BEFORE_LOG_ENTRY)
    commit_files(
        snapshot,
        FileActions(adds, touched, written),
        operation="MERGE",
        parameters={"removal": removal.value},
        metrics={
            "numTargetRowsInserted": changes.counts.inserted,
            "numTargetRowsUpdated": changes.counts.updated,
            "numTargetRowsDeleted": changes.counts.deleted,
            "numTargetFilesAdded": len(adds),
            "numTargetFilesRemoved": len(touched),
        },
        properties=commit,
        new_columns=pa.schema(target.added) if target.added else None,
    )


@dataclass
class _Group:
    """What becomes one file: what is left of some files, and new rows."""

    partition_values: Mapping[str, str | None]
    files: list[LiveFile] = field(default_factory=list)
    rows: pa.Table | None = None

    @property
    def has_room(self) -> bool:
        return sum(file.size_bytes for file in self.files) < JOINED_BYTES


def _groups(snapshot: Snapshot, rows: pa.Table, files: list[LiveFile]) -> list[_Group]:
    """Small files that are rewritten anyway become one, and the new rows of their partition with
    them: the next search for keys opens so many files less.
    """
    groups: dict[tuple[tuple[str, str | None], ...], list[_Group]] = {}

    def of(values: Mapping[str, str | None]) -> _Group:
        of_partition = groups.setdefault(tuple(sorted(values.items())), [])
        if not of_partition or not of_partition[-1].has_room:
            of_partition.append(_Group(values))
        return of_partition[-1]

    for file in files:
        of(file.partition_values).files.append(file)
    for values, part in by_partition(rows, snapshot.partition_columns):
        if len(part):
            of(values).rows = part
    return [group for of_partition in groups.values() for group in of_partition]


def _file_of(
    snapshot: Snapshot, group: _Group, gone: Mapping[str, BitMap64], schema: pa.Schema
) -> dict[str, object]:
    stored = pa.schema([field for field in schema if field.name not in group.partition_values])

    def batches() -> Iterator[pa.RecordBatch]:
        for file in group.files:
            left = 0
            for batch in live_batches(snapshot, file, stored, gone[file.path]):
                left += batch.num_rows
                yield batch
            if not left:
                raise _fewer_rows(snapshot, file)
        if group.rows is not None:
            yield from group.rows.select(stored.names).to_batches()

    add = write_data_file(
        snapshot.store, schema, group.partition_values, batches(), plain_columns=HARDLY_REPEATED
    )
    assert add is not None, "a group has rows"
    return add


def _fewer_rows(snapshot: Snapshot, file: LiveFile) -> StorageError:
    return StorageError(
        f"{file.path} in {snapshot.store.uri} has fewer rows than the log says.",
        safe="Nothing of this attempt is in the table.",
        hint="Restore the table to a version before the damage.",
    )


def _hidden(
    snapshot: Snapshot, files: list[LiveFile], gone: Mapping[str, BitMap64]
) -> tuple[list[dict[str, object]], list[str]]:
    """Add actions of the same data files with vectors, and the path of the file of vectors."""
    if not files:
        return [], []
    content, placed = vectors.file_of([gone[file.path] for file in files], uuid.uuid4())
    snapshot.store.write(placed[0].path, content)
    crash_points.reach(crash_points.AFTER_VECTORS)
    adds = [
        {
            **file.add,
            "dataChange": True,
            "stats": wide_bounds(file.add.get("stats"), snapshot.rows_in(file)),
            "deletionVector": vector.action(),
        }
        for file, vector in zip(files, placed, strict=True)
    ]
    return adds, [placed[0].path]
