"""The merge engines: they find the same rows and differ in how these leave the table.

Copy-on-write rewrites the files that hold replaced rows, so that every reader opens the table.
Merge-on-read hides the rows by deletion vectors, so that a merge costs what its batch costs.
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
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.rows.delta_rs_engine import DeltaMergeEngine
from datazone_dagster.rows.engine import MergeTarget, RowChanges
from datazone_dagster.rows.locate import CHANGE_ROW, locate, positions
from datazone_dagster.rows.merge_batch import CAUSE, MergeBatch
from datazone_dagster.rows.row_changes import (
    Choice,
    Removal,
    UnsupportedRulesError,
    change_rows,
    rewritten_bytes,
)

_logger = logging.getLogger(__name__)

AUTO_REWRITE_BYTES = 32_000_000
"""From a merge that would rewrite so much on, an `"auto"` table has deletion vectors."""


class RowEngine:
    """Implements `MergeEngine`.

    Args:
        choose: How the removed rows leave a table.
    """

    def __init__(self, choose: Choice) -> None:
        self._choose = choose

    def merge(
        self, target: MergeTarget, batch: MergeBatch, commit: CommitProperties
    ) -> MergeCounts:
        """See `MergeEngine.merge`."""
        try:
            return change_rows(target, lambda table: merged(table, batch), commit, self._choose)
        except UnsupportedRulesError as rules:
            _logger.info("Dataset %s: %s; merging by delta-rs.", target.dataset_id, rules)
            return DeltaMergeEngine().merge(target, batch, commit)

    def replace(
        self, target: MergeTarget, gone: pa.Table, rows: pa.Table, commit: CommitProperties
    ) -> None:
        """See `MergeEngine.replace`."""
        try:
            change_rows(
                target, lambda table: replaced(table, gone, rows), commit, self._choose, attempts=1
            )
        except UnsupportedRulesError as rules:
            _logger.info("Dataset %s: %s; merging by delta-rs.", target.dataset_id, rules)
            DeltaMergeEngine().replace(target, gone, rows, commit)


class CopyOnWriteEngine(RowEngine):
    """Rewrites the touched files. Vectors that they have are applied and gone."""

    def __init__(self) -> None:
        super().__init__(lambda *_: Removal.REWRITE)


class MergeOnReadEngine(RowEngine):
    """Hides rows by deletion vectors. A table without the feature gets it with the first one."""

    def __init__(self) -> None:
        super().__init__(lambda *_: Removal.VECTORS)


class AutoEngine(RowEngine):
    """Rewrites while that is little, and has deletion vectors from the first time it is not.

    Args:
        rewrite_bytes: What a merge may rewrite before the table gets deletion vectors.
    """

    def __init__(self, rewrite_bytes: int = AUTO_REWRITE_BYTES) -> None:
        def choose(snapshot: Snapshot, changes: RowChanges) -> Removal:
            if snapshot.writes_vectors:
                return Removal.VECTORS
            bytes_ = rewritten_bytes(snapshot, changes)
            if bytes_ < rewrite_bytes:
                return Removal.REWRITE
            _logger.warning(
                "The table %s has deletion vectors from now on: this merge would rewrite %.0f MB. "
                "Its readers must know that feature of Delta; it is not taken back by itself.",
                snapshot.store.uri,
                bytes_ / 1e6,
            )
            return Removal.VECTORS

        super().__init__(choose)


def engine_for(deletion_vectors: Literal["auto"] | bool) -> RowEngine:
    """The engine that a dataset's setting asks for."""
    if deletion_vectors == "auto":
        return AutoEngine()
    return MergeOnReadEngine() if deletion_vectors else CopyOnWriteEngine()


def merged(snapshot: Snapshot, batch: MergeBatch) -> RowChanges:
    """What a batch changes in a table: winning claims replace all rows of their keys.

    Raises:
        OSError: The store failed.
        StorageError: A deletion vector is damaged.
    """
    keyed_changes = batch.keyed_changes
    found = locate(snapshot, keyed_changes[KEY], below=pc.min(keyed_changes[VERSION]).as_py())
    held, lost = np.zeros(len(keyed_changes), bool), np.zeros(len(keyed_changes), bool)
    at = found[CHANGE_ROW].to_numpy()
    held[at] = True
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
            inserted=int((stays & ~held).sum()),
            updated=int((stays & held & ~lost).sum()),
            deleted=int((~stays & held & ~lost).sum()),
        ),
    )


def replaced(snapshot: Snapshot, gone: pa.Table, rows: pa.Table) -> RowChanges:
    """Rows of certain keys and versions replaced by others.

    Args:
        snapshot: The table.
        gone: Key and version of the rows that leave.
        rows: The rows that come.

    Raises:
        OSError: The store failed.
        StorageError: A deletion vector is damaged.
    """
    keys = pa.chunked_array([gone[KEY].unique()])
    found = locate(snapshot, keys)
    held = pa.table({KEY: keys.take(found[CHANGE_ROW]), VERSION: found[VERSION]})
    leaving = pc.is_in(_places(held), _places(gone).combine_chunks())
    return RowChanges(positions(found.filter(leaving), snapshot.files), rows)


def _places(rows: pa.Table) -> pa.ChunkedArray:
    """Version and key in one text; versions are of one length."""
    return pc.binary_join_element_wise(rows[VERSION], rows[KEY], "")
