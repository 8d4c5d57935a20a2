"""Merge with delta-rs, for tables whose rules only it supports: constraints, change feed, locks.

delta-rs inserts a source key twice if it is unmatched twice, and can't replace several rows
of a key as a unit. Rows of winning keyed changes therefore never match. A marker per replaced key
matches and deletes the existing rows; the new rows are inserted in the same commit.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable

from datazone_dagster.delta import guarded
from datazone_dagster.delta.write_table import WRITER, add_columns, append_rows
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.rows.align import aligned
from datazone_dagster.rows.engine import MergeTarget
from datazone_dagster.rows.locate import CHANGE_ROW, locate
from datazone_dagster.rows.merge_batch import MergeBatch
from datazone_dagster.rows.versions import HIGHEST, with_highest

_OP = "_dz_op"
_REPLACED, _INSERTED = 0, 1


class DeltaMergeEngine:
    """Implements `MergeEngine` for tables that our own commits may not write; slow."""

    def merge(
        self, target: MergeTarget, batch: MergeBatch, commit: CommitProperties
    ) -> MergeCounts:
        """See `MergeEngine.merge`."""
        existing = _existing_versions(target, batch.keyed_changes)
        batch = batch.without(_outdated(batch.keyed_changes, existing))
        replaced = pc.is_in(batch.keyed_changes[KEY], existing[KEY].combine_chunks())
        markers = batch.keyed_changes.filter(replaced)
        rows_of_new_keys = batch.keyed_changes.filter(
            pc.and_(pc.invert(replaced), pc.is_null(batch.keyed_changes["cause"]))
        )
        self._write(target, markers, batch.rows, commit, on=(KEY,))
        deleted = pc.sum(pc.is_valid(markers["cause"])).as_py() or 0
        return MergeCounts(
            inserted=len(rows_of_new_keys), updated=len(markers) - deleted, deleted=deleted
        )

    def replace(
        self, target: MergeTarget, removed: pa.Table, rows: pa.Table, commit: CommitProperties
    ) -> None:
        """See `MergeEngine.replace`."""
        changes = removed.group_by([KEY, VERSION]).aggregate([])  # a change may have several rows
        self._write(target, changes, rows, commit, on=(KEY, VERSION))

    def _write(
        self,
        target: MergeTarget,
        markers: pa.Table,
        rows: pa.Table,
        commit: CommitProperties,
        on: tuple[str, ...],
    ) -> None:
        doing = f"Merging into {target.title}"
        with guarded(target.uri, doing), target.table.by_delta_rs() as handle:
            if target.added:
                # A delta-rs MERGE can't add a column: a commit before it does.
                add_columns(handle, target.added)
            if len(markers):
                self._replace(handle, markers, rows, commit, on)
            else:
                append_rows(handle, rows, commit)

    def _replace(
        self,
        handle: DeltaTable,
        markers: pa.Table,
        rows: pa.Table,
        commit: CommitProperties,
        on: tuple[str, ...],
    ) -> None:
        same = " and ".join(f't."{name}" = s."{name}"' for name in on)
        handle.merge(
            _with_markers(markers, rows),
            predicate=f's."{_OP}" = {_REPLACED} and {same}',
            source_alias="s",
            target_alias="t",
            # Streamed execution can't prune: it scans every file of the target.
            streamed_exec=False,
            writer_properties=WRITER,
            commit_properties=commit,
        ).when_matched_delete().when_not_matched_insert(
            predicate=f's."{_OP}" = {_INSERTED}',
            updates={_quoted(name): f"s.{_quoted(name)}" for name in rows.column_names},
        ).execute()


def _existing_versions(target: MergeTarget, keyed_changes: pa.Table) -> pa.Table:
    """Return key and highest version of the table's rows of these keys."""
    found = locate(target.table.at, keyed_changes[KEY])
    rows = pa.table({KEY: keyed_changes[KEY].take(found[CHANGE_ROW]), VERSION: found[VERSION]})
    return rows.group_by(KEY).aggregate([(VERSION, "max")])


def _outdated(keyed_changes: pa.Table, existing: pa.Table) -> pa.Table:
    """Return the keyed changes that do not win: the table has their version or a higher one."""
    both = with_highest(keyed_changes, existing)
    return both.filter(pc.greater_equal(both[HIGHEST], both[VERSION]))


def _with_markers(markers: pa.Table, rows: pa.Table) -> pa.Table:
    marker_rows = aligned(markers.select([KEY, VERSION]), rows.schema)
    return pa.concat_tables([_tagged(marker_rows, _REPLACED), _tagged(rows, _INSERTED)])


def _tagged(rows: pa.Table, op: int) -> pa.Table:
    return rows.append_column(_OP, pa.repeat(pa.scalar(op, pa.int8()), len(rows)))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
