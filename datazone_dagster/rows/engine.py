"""The seam between deciding what a chunk does to a dataset and doing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from pyroaring import BitMap64

from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.rows.merge_batch import MergeBatch


@dataclass(frozen=True)
class MergeTarget:
    """The table to merge into, at the version that the whole merge goes by.

    The commit must be made on top of `table`'s version, so that a commit by anyone else since
    is noticed. An engine may then read the table again and merge anew; never write blindly.

    Args:
        dataset_id: For errors.
        uri: Of the table.
        storage_options: Of its store.
        table: The handle.
        schema: Of the rows; the table's with `added` at its end.
        added: Columns that the table does not have yet and gets in the same commit.
    """

    dataset_id: str
    uri: str
    storage_options: dict[str, str]
    table: DeltaTable
    schema: pa.Schema
    added: tuple[pa.Field, ...] = ()


@dataclass(frozen=True)
class RowChanges:
    """Which rows of a snapshot go, and which come.

    Args:
        removed: Positions of live rows, by path of their file.
        rows: New rows, in the table's schema.
        counts: What that means to the dataset.
    """

    removed: Mapping[str, BitMap64]
    rows: pa.Table
    counts: MergeCounts = field(default_factory=MergeCounts)


Plan = Callable[[Snapshot], RowChanges]
"""Makes the changes from a snapshot of the table; it may be called again with a later one."""


class MergeEngine(Protocol):
    """Makes the rows of every winning claim the rows of its key, in one commit.

    A claim wins where the table has no row of its key, or only rows of lower versions. A
    claim that does not win changes nothing. Rows of other keys stay as they are.
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
        self, target: MergeTarget, gone: pa.Table, rows: pa.Table, commit: CommitProperties
    ) -> None:
        """Remove the rows of certain keys and versions and add others, in one commit.

        Nothing is compared: the caller has planned with `target.table`, and a commit by
        anyone else since makes this one fail.

        Args:
            target: The table.
            gone: Key and version of the rows that leave.
            rows: In the table's schema; may have keys and versions of `gone` again.
            commit: Carried even if there is nothing to do.

        Raises:
            ConcurrentWriterError: Another commit came first; nothing was written.
            StorageError: The store failed.
        """
        ...
