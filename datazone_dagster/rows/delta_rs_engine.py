"""Merge by delta-rs, for tables with rules that only it keeps: constraints, change feed, locks.

delta-rs inserts a source key twice if it is unmatched twice, and can't replace several rows
of a key as one. So the rows of winning claims never match: a marker per replaced key does,
and deletes; the rows are inserted beside it, in the same commit.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, Schema, WriterProperties, write_deltalake

from datazone_dagster.delta import guarded
from datazone_dagster.delta.transaction_log import read_snapshot
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.rows.engine import MergeTarget
from datazone_dagster.rows.locate import CHANGE_ROW, locate
from datazone_dagster.rows.merge_batch import MergeBatch
from datazone_dagster.rows.versions import HIGHEST, with_highest

_OP = "_dz_op"
_REPLACED, _INSERTED = 0, 1

WRITER = WriterProperties(compression="ZSTD", compression_level=1)


class DeltaMergeEngine:
    """Implements `MergeEngine` where our own commits may not write. Rewrites by row, at length."""

    def merge(
        self, target: MergeTarget, batch: MergeBatch, commit: CommitProperties
    ) -> MergeCounts:
        """See `MergeEngine.merge`."""
        held = _held(target, batch.keyed_changes)
        batch = batch.without(_outdated(batch.keyed_changes, held))
        replaced = pc.is_in(batch.keyed_changes[KEY], held[KEY].combine_chunks())
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
        self, target: MergeTarget, gone: pa.Table, rows: pa.Table, commit: CommitProperties
    ) -> None:
        """See `MergeEngine.replace`."""
        self._write(target, gone, rows, commit, on=(KEY, VERSION))

    def _write(
        self,
        target: MergeTarget,
        markers: pa.Table,
        rows: pa.Table,
        commit: CommitProperties,
        on: tuple[str, ...],
    ) -> None:
        with guarded(target.uri, f"Merging into dataset {target.dataset_id!r}"):
            if target.added:
                # A MERGE of delta-rs can't add a column: it comes one commit before.
                target.table.alter.add_columns(
                    list(Schema.from_arrow(pa.schema(target.added)).fields)
                )
            if len(markers):
                self._replace(target, markers, rows, commit, on)
            else:
                write_deltalake(
                    target.table,
                    rows,
                    mode="append",
                    writer_properties=WRITER,
                    commit_properties=commit,
                )

    def _replace(
        self,
        target: MergeTarget,
        markers: pa.Table,
        rows: pa.Table,
        commit: CommitProperties,
        on: tuple[str, ...],
    ) -> None:
        same = " and ".join(f't."{name}" = s."{name}"' for name in on)
        target.table.merge(
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


def _held(target: MergeTarget, keyed_changes: pa.Table) -> pa.Table:
    """Key and highest version of the rows that the table has of these keys."""
    found = locate(read_snapshot(target.table, target.storage_options), keyed_changes[KEY])
    rows = pa.table({KEY: keyed_changes[KEY].take(found[CHANGE_ROW]), VERSION: found[VERSION]})
    return rows.group_by(KEY).aggregate([(VERSION, "max")])


def _outdated(keyed_changes: pa.Table, held: pa.Table) -> pa.Table:
    """The claims that do not win: the table has their version or a higher one."""
    both = with_highest(keyed_changes, held)
    return both.filter(pc.greater_equal(both[HIGHEST], both[VERSION]))


def _with_markers(markers: pa.Table, rows: pa.Table) -> pa.Table:
    marker_rows = pa.Table.from_arrays(
        [
            markers[field.name].cast(field.type)
            if field.name in (KEY, VERSION)
            else pa.chunked_array([pa.nulls(len(markers), field.type)])
            for field in rows.schema
        ],
        schema=rows.schema,
    )
    return pa.concat_tables([_tagged(marker_rows, _REPLACED), _tagged(rows, _INSERTED)])


def _tagged(rows: pa.Table, op: int) -> pa.Table:
    return rows.append_column(_OP, pa.repeat(pa.scalar(op, pa.int8()), len(rows)))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
