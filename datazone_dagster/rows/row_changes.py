"""Replacement of rows of a table by others, in one commit, for every mode that changes rows.

A plan is made from a snapshot of the table and lists the rows to remove and to add. The engine
chooses how rows are removed: their files are rewritten without them, or a deletion vector hides
them. After another commit in between, the table is read and the plan made again.
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
from datazone_dagster.delta.transaction_log import LiveFile, Snapshot
from datazone_dagster.errors import ConcurrentWriterError, StorageError
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.process import crash_points
from datazone_dagster.rows.bucket_files import tag_in, tag_of, tagged
from datazone_dagster.rows.engine import MergeTarget, Plan, RowChanges
from datazone_dagster.rows.removal_policy import TouchedFile

_logger = logging.getLogger(__name__)

ATTEMPTS = 8
"""Attempts at one change: the change fails after losing this many commit races."""

HARDLY_REPEATED = (KEY, VERSION)

JOINED_BYTES = 32 << 20
"""Files that are rewritten are joined until their sizes before the rewrite add up to this."""


class Removal(Enum):
    """Method by which rows leave a table."""

    REWRITE = "rewrite"
    VECTORS = "vectors"


Choice = Callable[[Snapshot, RowChanges, float], Removal]
"""Decides how removed rows leave, with the number of merges that the backlog will still bring."""


class UnsupportedRulesError(Exception):
    """The table requires something of writers that our own commits do not support."""


def change_rows(
    target: MergeTarget,
    plan: Plan,
    commit: CommitProperties,
    choose: Choice,
    *,
    attempts: int = ATTEMPTS,
) -> MergeCounts:
    """Plan and commit, again if another commit came first; the table is then at the new version.

    The commit carries `commit` even if no row changes.

    Args:
        target: The table, at the version to plan on.
        plan: Function that plans the changes.
        commit: Properties that the commit carries.
        choose: Function that decides how removed rows leave.
        attempts: Maximum number of attempts; 1 if the plan is valid for that version only.

    Raises:
        ConcurrentWriterError: Another run did the same work, the table's columns or properties
            changed, or every attempt lost the commit race. Nothing of this is in the table.
        StorageError: The store failed.
        UnsupportedRulesError: The table has rules that only delta-rs supports.
    """
    lost = 0
    with guarded(target.uri, f"Changing rows of {target.title}"):
        while lost < attempts:
            try:
                return _attempt(target, plan, commit, choose)
            except LostRaceError as race:
                lost += 1
                _logger.info("Writing %s: %s.", target.title, race)
                _read_again(target, commit)
    raise ConcurrentWriterError(
        f"Changing rows of {target.title} at {target.uri}: another commit came "
        f"first{f' {lost} times' if lost > 1 else ''}.",
        safe="Nothing of this attempt is in the table; the other writer's commit is in effect.",
        hint="This run lost the commit race; the next one continues from the new state. If it "
        f"happens repeatedly, find out who else writes: {target.title} has one writer.",
    )


def _read_again(target: MergeTarget, commit: CommitProperties) -> None:
    """Read what came first; raise if a retry is pointless after the commits since."""

    ids = [*(one.app_id for one in commit.app_transactions or ()), *target.watched]

    def known() -> tuple[str, dict[str, int]]:
        at, independent = target.table.at, target.independent
        if independent is None:
            return at.schema_text, {app_id: at.transaction(app_id) for app_id in ids}
        others = {one: at.transactions[one] for one in at.transactions if not independent(one)}
        return at.schema_text, others

    before = known()
    target.table.refresh()
    if known() != before:
        raise ConcurrentWriterError(
            f"Changing rows of {target.title} at {target.uri}: another run applied "
            "the same changes or changes of these keys, or the table's columns were changed.",
            safe="Nothing of this attempt is in the table; the other writer's commit is in effect.",
            hint="This run lost the commit race; the next one continues from the new state.",
        )


def _attempt(
    target: MergeTarget, plan: Plan, commit: CommitProperties, choose: Choice
) -> MergeCounts:
    snapshot = target.table.at
    reason = why_not(snapshot)
    if reason is not None:
        raise UnsupportedRulesError(reason)
    changes = plan(snapshot)
    removal = choose(snapshot, changes, target.merges_left)
    if removal is Removal.VECTORS and not snapshot.writes_vectors:
        snapshot = enable_vectors(snapshot)
        target.table.move_to(snapshot)
    _commit(target, snapshot, changes, removal, commit)
    crash_points.reach(crash_points.AFTER_LOG_ENTRY)
    return changes.counts


def touched_files(snapshot: Snapshot, changes: RowChanges) -> Iterator[TouchedFile]:
    """Yield the files that keep some of their rows."""
    for file in snapshot.files:
        if file.path in changes.removed:
            rows = snapshot.rows_in(file)
            left = rows - file.deleted - len(changes.removed[file.path])
            if left > 0:
                yield TouchedFile(file.size_bytes, rows, left)


def _commit(
    target: MergeTarget,
    snapshot: Snapshot,
    changes: RowChanges,
    removal: Removal,
    commit: CommitProperties,
) -> None:
    touched = [file for file in snapshot.files if changes.removed.get(file.path)]
    deleted = {
        file.path: snapshot.deleted_in(file) | changes.removed[file.path] for file in touched
    }
    left = [file for file in touched if len(deleted[file.path]) < snapshot.rows_in(file)]
    rewrites = left if removal is Removal.REWRITE else []
    adds = [
        _file_of(snapshot, group, deleted, target.schema)
        for group in _groups(snapshot, changes.rows, rewrites, tag_of(target.bucket))
    ]
    written = [LiveFile(add, None).path for add in adds]
    adds += [dict(add) for add in changes.files]
    crash_points.reach(crash_points.AFTER_DATA_FILES)
    if removal is Removal.VECTORS:
        hidden, path = _hidden(snapshot, left, deleted)
        adds += hidden
        written += path
    crash_points.reach(crash_points.BEFORE_LOG_ENTRY)
    after = commit_files(
        snapshot,
        FileActions(adds, touched, written),
        operation=changes.operation,
        parameters={"removal": removal.value, **changes.parameters},
        metrics={
            "numTargetRowsInserted": changes.counts.inserted,
            "numTargetRowsUpdated": changes.counts.updated,
            "numTargetRowsDeleted": changes.counts.deleted,
            "numTargetFilesAdded": len(adds),
            "numTargetFilesRemoved": len(touched),
        },
        properties=commit,
        new_columns=pa.schema(target.added) if target.added else None,
        new_schema=target.schema if target.replaces_schema else None,
        independent=target.independent,
    )
    target.table.move_to(after)


@dataclass
class _Group:
    """Contents of one new file: the remaining rows of some files, and new rows."""

    partition_values: Mapping[str, str | None]
    tag: str | None
    files: list[LiveFile] = field(default_factory=list)
    rows: pa.Table | None = None

    @property
    def can_grow(self) -> bool:
        return sum(file.size_bytes for file in self.files) < JOINED_BYTES


def _groups(
    snapshot: Snapshot, rows: pa.Table, files: list[LiveFile], tag: str | None
) -> list[_Group]:
    """Group the files to rewrite and the new rows by the file that they are written to.

    Small files of a partition are joined, also with its new rows: the next search for keys then
    opens fewer files. Files of one tag stay together; the new rows have `tag`.
    """
    groups: dict[object, list[_Group]] = {}

    def group_for(values: Mapping[str, str | None], tag: str | None) -> _Group:
        partition_groups = groups.setdefault((tag, tuple(sorted(values.items()))), [])
        if not partition_groups or not partition_groups[-1].can_grow:
            partition_groups.append(_Group(values, tag))
        return partition_groups[-1]

    for file in files:
        group_for(file.partition_values, tag_in(file)).files.append(file)
    for values, partition_rows in by_partition(rows, snapshot.partition_columns):
        if len(partition_rows):
            group_for(values, tag).rows = partition_rows
    return [group for partition_groups in groups.values() for group in partition_groups]


def _file_of(
    snapshot: Snapshot, group: _Group, deleted: Mapping[str, BitMap64], schema: pa.Schema
) -> dict[str, object]:
    stored = pa.schema([field for field in schema if field.name not in group.partition_values])

    def batches() -> Iterator[pa.RecordBatch]:
        for file in group.files:
            left = 0
            for batch in live_batches(snapshot, file, stored, deleted[file.path]):
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
    return dict(tagged(add, group.tag))


def _fewer_rows(snapshot: Snapshot, file: LiveFile) -> StorageError:
    return StorageError(
        f"{file.path} in {snapshot.store.uri} has fewer rows than the log says.",
        safe="Nothing of this attempt is in the table.",
        hint="Restore the file from a backup, or the table to a version before the damage "
        "(RESTORE): the next run applies the changes since then again.",
    )


def _hidden(
    snapshot: Snapshot, files: list[LiveFile], deleted: Mapping[str, BitMap64]
) -> tuple[list[dict[str, object]], list[str]]:
    """Write a vector file; return add actions of the data files with vectors, and its path."""
    if not files:
        return [], []
    content, written = vectors.file_of([deleted[file.path] for file in files], uuid.uuid4())
    snapshot.store.write(written[0].path, content)
    crash_points.reach(crash_points.AFTER_VECTORS)
    adds = [
        {
            **file.add,
            "dataChange": True,
            "stats": wide_bounds(file.add.get("stats"), snapshot.rows_in(file)),
            "deletionVector": vector.action(),
        }
        for file, vector in zip(files, written, strict=True)
    ]
    return adds, [written[0].path]
