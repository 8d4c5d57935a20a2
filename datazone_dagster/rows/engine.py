"""The interface between planning the changes of a chunk to a dataset and making them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa
from deltalake import CommitProperties
from pyroaring import BitMap64

from datazone_dagster.delta.rebase import Independent
from datazone_dagster.delta.table import Table
from datazone_dagster.delta.transaction_log import Action, Snapshot
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.rows.merge_batch import MergeBatch


@dataclass(frozen=True)
class MergeTarget:
    """The table to merge into, at the version on which the merge is planned.

    The commit must be made on top of `table`'s version, so that a later commit by another writer
    is detected. An engine may then read the table again and repeat the merge; it must not write
    blindly. The table is at the version of its commit afterwards.

    Args:
        dataset_id: Name of the table in errors.
        table: The table.
        schema: Schema of the rows: the table's, with `added` at its end.
        added: Columns that the table does not have yet and gets in the same commit.
        replaces_schema: Whether the commit sets the schema to `schema`: every row is replaced.
        merges_left: Number of merges of this size that the backlog will still bring.
        noun: What errors call it: a dataset, or an asset whose table this is.
        bucket: Bucket of all keys that the merge changes.
        independent: Writers of other keys, whose commits do not make this one fail.
        watched: Applications beside that of the commit which change the same keys. If one of them
            commits first, the rows were made without what it has deleted: the merge fails.
    """

    dataset_id: str
    table: Table
    schema: pa.Schema
    added: tuple[pa.Field, ...] = ()
    replaces_schema: bool = False
    merges_left: float = 0.0
    noun: str = "dataset"
    bucket: KeyBucket = WHOLE
    independent: Independent | None = None
    watched: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Name of the table in errors."""
        return f"{self.noun} {self.dataset_id!r}"

    @property
    def uri(self) -> str:
        """Location of the table."""
        return self.table.uri


@dataclass(frozen=True)
class RowChanges:
    """Rows to remove from a snapshot, and rows to add.

    Args:
        removed: Positions of live rows to remove, by path of their file.
        rows: Rows to add, in the table's schema.
        counts: Numbers of inserted, updated and deleted keys or intervals of the dataset.
        files: Add actions of files that are written already and that the commit adds. The caller
            deletes them if the commit race is lost.
        operation: Name of the operation in the table's history.
        parameters: Parameters of the operation in the history.
    """

    removed: Mapping[str, BitMap64]
    rows: pa.Table
    counts: MergeCounts = field(default_factory=MergeCounts)
    files: Sequence[Action] = ()
    operation: str = "MERGE"
    parameters: Mapping[str, str] = field(default_factory=dict)


Plan = Callable[[Snapshot], RowChanges]
"""Plans the changes on a snapshot of the table; it may be called again with a later snapshot."""


class MergeEngine(Protocol):
    """Replaces the rows of a key by those of its winning keyed change, in one commit.

    A keyed change wins if the table has no row of its key, or only rows of lower versions. A
    keyed change that does not win changes nothing. Rows of other keys stay as they are.
    """

    def merge(
        self, target: MergeTarget, batch: MergeBatch, commit: CommitProperties
    ) -> MergeCounts:
        """Apply a batch whose rows are already in the table's schema.

        The commit carries `commit` even if no row changes: it moves the position.

        Raises:
            ConcurrentWriterError: Another commit came first; nothing was written.
            StorageError: The store failed.
        """
        ...

    def replace(
        self, target: MergeTarget, removed: pa.Table, rows: pa.Table, commit: CommitProperties
    ) -> None:
        """Remove the rows of certain keys and versions and add others, in one commit.

        Versions are not compared: the caller has planned with `target.table`, and a later commit
        by another writer makes this one fail.

        Args:
            target: The table.
            removed: Key and version of the rows to remove; their locations, too, if they were
                found with `target.table` as it is.
            rows: Rows to add, in the table's schema; they may have keys and versions of `removed`.
            commit: Properties that the commit carries, even if no row changes.

        Raises:
            ConcurrentWriterError: Another commit came first; nothing was written.
            StorageError: The store failed.
        """
        ...
