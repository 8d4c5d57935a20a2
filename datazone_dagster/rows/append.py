"""Rows appended to a table, in one commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pyarrow as pa
from deltalake import CommitProperties

from datazone_dagster.delta.commit import FileActions, LostRaceError, commit_files, why_not
from datazone_dagster.delta.data_file import by_partition, write_data_file
from datazone_dagster.delta.live_file import LiveFile
from datazone_dagster.delta.rebase import Independent
from datazone_dagster.delta.table import Table
from datazone_dagster.delta.write_table import append_rows
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.rows.bucket_files import tagged

FRESH_SECONDS = 3600.0
"""Time after which a file is not put again after commits of others: it may be deleted as one that
no version has, where its writer was frozen for a day."""


def append(
    table: Table,
    rows: pa.Table,
    commit: CommitProperties | None = None,
    *,
    added: Sequence[pa.Field] = (),
    attempts: int = 1,
    independent: Independent | None = None,
    tag: str | None = None,
    check: Callable[[Table], None] = lambda table: None,  # noqa: ARG005
) -> None:
    """Append rows; the table is at the new version afterwards.

    Args:
        table: The table, at the version to commit on.
        rows: Rows in the table's schema, with the columns of `added`.
        commit: Properties that the commit carries, even without rows.
        added: Columns that the table gets with the rows: see `delta.commit.can_come_with_rows`.
        attempts: Attempts at the commit while others commit first; 1 if the rows are right for
            that version only.
        independent: Writers of other rows, which do not count as others.
        tag: Tag of the file, as of `bucket_files.tag_of`.
        check: Called with the version to commit on; raises `ConcurrentWriterError` if the rows are
            not right for it.

    Raises:
        ConcurrentWriterError: Another commit came first; nothing was written.
        DeltaError: delta-rs, which writes to tables whose rules only it supports, has failed.
        OSError: The store failed.
    """
    check(table)
    if why_not(table.at) is not None:
        with table.by_delta_rs() as handle:
            append_rows(handle, rows, commit, adds_columns=bool(added))
        return
    store, begun_seconds = table.at.store, time.monotonic()
    written = (
        write_data_file(store, rows.schema, values, part.to_batches(), plain_columns=(KEY, VERSION))
        for values, part in by_partition(rows, table.partition_columns)
    )
    adds = [tagged(add, tag) for add in written if add is not None]
    for attempts_left in reversed(range(attempts)):
        try:
            after = commit_files(
                table.at,
                FileActions(adds, []),
                operation="WRITE",
                parameters={"mode": "Append"},
                metrics={"num_added_files": len(adds), "num_added_rows": len(rows)},
                properties=commit,
                new_columns=pa.schema(added) if added else None,
                independent=independent,
            )
        except (LostRaceError, ConcurrentWriterError) as lost:
            is_fresh = time.monotonic() - begun_seconds < FRESH_SECONDS
            if attempts_left and is_fresh and isinstance(lost, LostRaceError):
                table.refresh()
                check(table)
                continue
            store.delete(LiveFile(add, None).path for add in adds)
            if isinstance(lost, ConcurrentWriterError):
                raise
            raise ConcurrentWriterError(
                f"Appending rows to {table.uri}: {lost}.",
                safe="Nothing of this attempt is in the table; the other writer's commit is "
                "intact.",
                hint="This attempt lost the commit race; the next one continues from the new "
                "state.",
            ) from lost
        table.move_to(after)
        return
