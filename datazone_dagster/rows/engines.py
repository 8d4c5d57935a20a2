"""The merge engines: they find the same rows and differ in how they remove them.

Copy-on-write rewrites the files that contain replaced rows, so every reader can open the table.
Merge-on-read hides the rows with deletion vectors, so the cost of a merge depends on its batch.
"""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties

from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.rows.change_ids import are_among
from datazone_dagster.rows.delta_rs_engine import DeltaMergeEngine
from datazone_dagster.rows.engine import MergeTarget, Plan, RowChanges
from datazone_dagster.rows.locate import CHANGE_ROW, FILE, POSITION, locate, positions
from datazone_dagster.rows.merge_batch import CAUSE, MergeBatch
from datazone_dagster.rows.removal_policy import REWRITE_BYTES, hides_rows, rewritten_bytes
from datazone_dagster.rows.row_changes import (
    Choice,
    Removal,
    UnsupportedRulesError,
    change_rows,
    touched_files,
)

_logger = logging.getLogger(__name__)


class RowEngine:
    """Implements `MergeEngine`.

    Args:
        choose: Function that decides how removed rows leave a table.
    """

    def __init__(self, choose: Choice) -> None:
        self._choose = choose

    def merge(
        self, target: MergeTarget, batch: MergeBatch, commit: CommitProperties
    ) -> MergeCounts:
        """See `MergeEngine.merge`."""
        try:
            return change_rows(
                target, lambda table: merged(table, batch, target.bucket), commit, self._choose
            )
        except UnsupportedRulesError as rules:
            _logger.info("Merging into %s with delta-rs: %s.", target.title, rules)
            return DeltaMergeEngine().merge(target, batch, commit)

    def change(self, target: MergeTarget, plan: Plan, commit: CommitProperties) -> MergeCounts:
        """Commit a caller's own plan; errors as for `change_rows`."""
        return change_rows(target, plan, commit, self._choose)

    def replace(
        self, target: MergeTarget, removed: pa.Table, rows: pa.Table, commit: CommitProperties
    ) -> None:
        """See `MergeEngine.replace`."""
        try:
            change_rows(
                target,
                lambda table: replaced(table, removed, rows, target.bucket),
                commit,
                self._choose,
                attempts=1,
            )
        except UnsupportedRulesError as rules:
            _logger.info("Merging into %s with delta-rs: %s.", target.title, rules)
            DeltaMergeEngine().replace(target, removed, rows, commit)


class CopyOnWriteEngine(RowEngine):
    """Rewrites the touched files; their deletion vectors are applied and dropped."""

    def __init__(self) -> None:
        super().__init__(lambda *_: Removal.REWRITE)


class MergeOnReadEngine(RowEngine):
    """Hides rows with deletion vectors; a table gets the feature with the first vector."""

    def __init__(self) -> None:
        super().__init__(lambda *_: Removal.VECTORS)


class AutoEngine(RowEngine):
    """Rewrites files while that is cheap; switches to deletion vectors the first time it is not.

    Args:
        rewrite_bytes: Bytes that a single merge would rewrite from which on the table gets deletion
            vectors; `removal_policy` says more.
    """

    def __init__(self, rewrite_bytes: int = REWRITE_BYTES) -> None:
        def choose(snapshot: Snapshot, changes: RowChanges, merges_left: float) -> Removal:
            if snapshot.writes_vectors:
                return Removal.VECTORS
            rewritten = rewritten_bytes(touched_files(snapshot, changes))
            if not hides_rows(rewritten, merges_left, one_merge_bytes=rewrite_bytes):
                return Removal.REWRITE
            _logger.warning(
                "The table %s has deletion vectors from now on: this merge would rewrite %.0f MB, "
                "and the backlog brings about %.0f more. Its readers must support that Delta "
                "feature; it is never removed automatically.",
                *(snapshot.store.uri, rewritten / 1e6, merges_left),
            )
            return Removal.VECTORS

        super().__init__(choose)


def engine_for(deletion_vectors: Literal["auto"] | bool) -> RowEngine:
    """Return the engine for a dataset's `deletion_vectors` setting."""
    if deletion_vectors == "auto":
        return AutoEngine()
    return MergeOnReadEngine() if deletion_vectors else CopyOnWriteEngine()


def merged(snapshot: Snapshot, batch: MergeBatch, bucket: KeyBucket = WHOLE) -> RowChanges:
    """Plan a batch on a table: winning keyed changes replace all rows of their keys.

    Args:
        snapshot: Snapshot of the table.
        batch: The changes.
        bucket: Bucket of their keys.

    Raises:
        OSError: The store failed.
        StorageError: A deletion vector is damaged.
    """
    keyed_changes = batch.keyed_changes
    found = locate(snapshot, keyed_changes[KEY], changed_to=keyed_changes[VERSION], bucket=bucket)
    existing, lost = np.zeros(len(keyed_changes), bool), np.zeros(len(keyed_changes), bool)
    at = found[CHANGE_ROW].to_numpy()
    existing[at] = True
    not_below = pc.greater_equal(found[VERSION], keyed_changes[VERSION].take(found[CHANGE_ROW]))
    lost[at[pc.fill_null(not_below, False).to_numpy()]] = True
    if lost.any():
        found = found.filter(pa.array(~lost[at]))
        batch = batch.without(keyed_changes.filter(pa.array(lost)).select([KEY]))
    stays = pc.is_null(keyed_changes[CAUSE]).to_numpy()
    return RowChanges(
        removed=positions(found, snapshot.files),
        rows=batch.rows,
        counts=MergeCounts(
            inserted=int((stays & ~existing).sum()),
            updated=int((stays & existing & ~lost).sum()),
            deleted=int((~stays & existing & ~lost).sum()),
        ),
    )


def replaced(
    snapshot: Snapshot, removed: pa.Table, rows: pa.Table, bucket: KeyBucket = WHOLE
) -> RowChanges:
    """Plan the replacement of rows of certain keys and versions by others.

    Args:
        snapshot: Snapshot of the table.
        removed: Key and version of the rows to remove, or their locations in the snapshot.
        rows: The rows to add.
        bucket: Bucket of the keys of the rows to remove.

    Raises:
        OSError: The store failed.
        StorageError: A deletion vector is damaged.
    """
    if {FILE, POSITION} <= set(removed.column_names):
        return RowChanges(positions(removed, snapshot.files), rows)
    keys = pa.chunked_array([removed[KEY].unique()])
    found = locate(snapshot, keys, bucket=bucket)
    existing = pa.table({KEY: keys.take(found[CHANGE_ROW]), VERSION: found[VERSION]})
    leaving = are_among(existing, removed)
    return RowChanges(positions(found.filter(leaving), snapshot.files), rows)
