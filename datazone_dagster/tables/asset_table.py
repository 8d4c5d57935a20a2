"""The table of an asset: one result becomes one commit, with what it replaces.

A result is read once, in batches: its rows go to memory if they are few, else to files that no
reader sees before the commit. So code of the asset that fails halfway has changed nothing, and
a commit that loses the race is planned again on the new version without asking for the rows again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain

import pyarrow as pa

from datazone_dagster.database.database import Task
from datazone_dagster.database.database import opened as open_database
from datazone_dagster.delta import Commit, guarded, transactions
from datazone_dagster.delta.intervals import TRANSACTION_RETENTION
from datazone_dagster.delta.log_upkeep import NO_CLEANING
from datazone_dagster.delta.table import Table, created, opened
from datazone_dagster.delta.table_state import kept_table
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.errors import (
    ConcurrentWriterError,
    ResultError,
    SchemaChangeError,
    StorageError,
)
from datazone_dagster.model.asset_write import AssetWrite
from datazone_dagster.model.layout import ASSET_KIND, Layout
from datazone_dagster.model.partition_slice import PartitionSlice
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.model.table_written import TableWritten
from datazone_dagster.rows.align import aligned
from datazone_dagster.rows.engine import MergeTarget, RowChanges
from datazone_dagster.rows.engines import engine_for
from datazone_dagster.rows.overwrite import rewritten
from datazone_dagster.rows.row_changes import UnsupportedRulesError
from datazone_dagster.tables.checked_rows import DeltaForm, RowChecks, checked_mapping, delta_form
from datazone_dagster.tables.key_table import NOT_STORED, KeyTable
from datazone_dagster.tables.maintain_tables import SORTED_BY
from datazone_dagster.tables.result_stream import Result, opened_result
from datazone_dagster.tables.slice_filter import Tests, tests_of
from datazone_dagster.tables.slice_rows import all_rows_of, rows_in_slice
from datazone_dagster.tables.staged_rows import StagedRows
from datazone_dagster.tables.table_fit import TableFit, check_result, files_by, table_fit

_ATTEMPTS = 8
"""Attempts at one write while others change the columns of the table."""

_RUNS_KNOWN = {TRANSACTION_RETENTION: "interval 7 days"}
"""Table property: for how long a repeated attempt of a run is recognised."""


@dataclass
class _Write:
    """One result on its way into the table."""

    table: Table
    staged: StagedRows
    fit: TableFit
    tests: Tests | None
    keys: KeyTable | None
    commit: Commit
    counts: MergeCounts = field(default_factory=MergeCounts)
    removed: int = 0


class AssetTable:
    """The table of one asset.

    Args:
        layout: Locations of the tables.
        name: Name of the table, see `Layout.table`.
        write: How results are written.
        part: Partitions that a run writes; None if the asset has none.
    """

    def __init__(
        self,
        layout: Layout,
        name: str,
        write: AssetWrite,
        part: PartitionSlice | None = None,
    ) -> None:
        self.uri = layout.table(name)
        self._options = dict(layout.storage_options)
        self._name = name
        self._where = f"Asset {name!r}"
        self._write = write
        self._part = part

    def put(self, returned: object, *, step: str | None, now: datetime) -> TableWritten:
        """Write a result in one commit; columns that are widened take one of their own before.

        Args:
            returned: What the asset returned.
            step: Identity of the step and its run: a second append of the same one does nothing.
            now: The current time.

        Raises:
            DefinitionError: The metadata does not fit the columns.
            ResultError: The result is not rows, or a row of it can't be written.
            SchemaChangeError: A column changed to a type that the table can't take.
            ConcurrentWriterError: Other writers committed first, again and again.
            UnrecognisedTableError: The table there belongs to someone else.
            StorageError: The store failed.
        """
        table = opened(self.uri, self._options, ASSET_KIND)
        app_id = f"asset/{step}" if self._write.mode == "append" and step else None
        if table is not None and app_id is not None and table.transaction(app_id):
            return _report(table, table.at, already_written=True)
        if isinstance(returned, Mapping):
            checked_mapping(returned, self._part.keys if self._part else (), where=self._where)
        result = opened_result(returned, where=self._where)
        result, has_rows = _looked_at(result)
        form = self._form(result, table, has_rows=has_rows)
        if not len(form.schema):
            return self._nothing(result, form, table)
        check_result(form.schema, self._write, where=self._where)
        fit = self._fit(table, form.schema)
        tests = self._tests(fit.schema)
        before = None if table is None else table.at
        at = self._before_its_making(form.schema) if table is None else table.at
        commit = transactions({} if app_id is None else {app_id: 1}, expires_from=now)
        with ExitStack() as stack, guarded(self.uri, f"Writing {self._where.lower()}"):
            staged, keys = self._stage(stack, at, result, fit, tests)
            with ExitStack() as uncommitted:
                uncommitted.callback(staged.remove_files)
                table = table or self._create(form.schema)
                done = _Write(table, staged, fit, tests, keys, commit)
                already = before is None and self._has_rows_of(done, app_id)
                uncommitted.pop_all()
            try:
                already = already or self._commit(done, app_id)
            except (ConcurrentWriterError, SchemaChangeError):  # surely not committed
                staged.remove_files()
                raise
        if already:
            done.staged.remove_files()
        return replace(
            _report(table, before, already_written=already),
            rows_written=0 if already else done.staged.count,
            rows_removed=0 if already else done.removed,
            keys_inserted=done.counts.inserted,
            keys_updated=done.counts.updated,
            keys_deleted=done.counts.deleted,
            columns_missing=done.fit.missing,
            columns_untyped=tuple(name for name in form.untyped if name not in form.schema.names),
            times_as_utc=form.as_utc,
            notes=(*result.notes, *self._ignored(table)),
        )

    def _form(self, result: Result, table: Table | None, *, has_rows: bool) -> DeltaForm:
        """Return the form of a result; one without rows has the types of the table."""
        if table is not None and not has_rows:
            return DeltaForm(table.schema, (), ())
        form = delta_form(result.schema, where=self._where)
        known = (
            []
            if table is None
            else [table.schema.field(name) for name in form.untyped if name in table.schema.names]
        )
        return replace(form, schema=pa.schema([*form.schema, *known]))

    def _fit(self, table: Table | None, result: pa.Schema) -> TableFit:
        return table_fit(
            None if table is None else table.schema,
            result,
            where=self._where,
            replaces=self._write.schema_mode == "overwrite",
            partitions=() if table is None else table.partition_columns,
        )

    def _tests(self, schema: pa.Schema) -> Tests | None:
        return None if self._part is None else tests_of(self._part, schema, where=self._where)

    def _nothing(self, result: Result, form: DeltaForm, table: Table | None) -> TableWritten:
        """Report a result without columns: there is no table to make from it."""
        if table is None and not any(len(rows) for rows in result.batches):
            note = "The result has no rows and no columns, so there is no table yet."
            return TableWritten(self.uri, None, notes=(*result.notes, note))
        raise ResultError(
            f"{self._where}: no column of the result has a type: {', '.join(form.untyped)} hold "
            "nulls only.",
            safe="Nothing was written; the table is as it was.",
            hint="Give the columns a type: cast them.",
        )

    def _files_by(self, result: pa.Schema) -> tuple[str, ...]:
        windows = (
            ()
            if self._part is None
            else (one.column for all_of in self._part.alternatives for one in all_of if one.windows)
        )
        return files_by(self._write, result, windows=windows)

    def _before_its_making(self, result: pa.Schema) -> Snapshot:
        """Return a stand-in for the table, which is made once its first result is checked."""
        store = kept_table(self.uri, self._options, ASSET_KIND).store
        return Snapshot(store, -1, {}, {"partitionColumns": self._files_by(result)}, {}, {})

    def _create(self, result: pa.Schema) -> Table:
        configuration = {**NO_CLEANING, **_RUNS_KNOWN}
        if self._write.key:
            configuration[SORTED_BY] = self._write.key[0]
        return created(
            self.uri,
            self._options,
            ASSET_KIND,
            pa.schema([one.with_nullable(True) for one in result]),
            partition_by=self._files_by(result),
            configuration=configuration,
        )

    def _stage(
        self,
        stack: ExitStack,
        at: Snapshot,
        result: Result,
        fit: TableFit,
        tests: Tests | None,
    ) -> tuple[StagedRows, KeyTable | None]:
        """Read the result, check it and put its rows where the commit finds them."""
        keys, connection = None, None
        if self._write.mode == "merge":
            task = Task(
                f"compare the keys of {self._where.lower()} with those of the table",
                "Nothing of this result is in the table.",
                "Return fewer rows at a time, for example in partitions.",
            )
            connection = stack.enter_context(open_database(task=task))
            keys = KeyTable(connection, self._write.key, self._write.order, where=self._where)
        checks = RowChecks(
            fit.schema,
            self._write,
            self._where,
            tests,
            at.partition_columns,
            () if self._part is None else self._part.keys,
        )
        staged = StagedRows(at, fit.schema, keys.add if keys else lambda *_: None)
        staged_all = False
        try:
            staged.take(
                checks.rows(
                    result.batches,
                    connection,
                    lambda rows: None if keys is None else keys.add(rows, NOT_STORED),
                )
            )
            if keys is not None:
                staged.drop(keys.settle())
            staged_all = True
        finally:
            if not staged_all:
                with suppress(OSError):  # maintenance removes what is left
                    staged.remove_files()
        return staged, keys

    def _has_rows_of(self, write: _Write, app_id: str | None) -> bool:
        """Fit the rows to a new table, which another run may have made; is this step in it?"""
        table = write.table
        if app_id is not None and table.transaction(app_id):
            return True
        same_files = table.partition_columns == write.staged.snapshot.partition_columns
        if not same_files or not self._still_fits(write):
            raise ConcurrentWriterError(
                f"{self._where}: another run made the table meanwhile, with other columns or "
                "files by other columns.",
                safe="Nothing of this run was written.",
                hint="Run it again.",
            )
        return False

    def _commit(self, write: _Write, app_id: str | None) -> bool:
        """Commit, again while others change the columns; return whether it was there already."""
        for attempts_left in reversed(range(_ATTEMPTS)):
            try:
                self._attempt(write)
            except ConcurrentWriterError:
                write.table.refresh()
                if app_id is not None and write.table.transaction(app_id):
                    return True
                if not attempts_left or not self._still_fits(write):
                    raise
            except UnsupportedRulesError as rules:
                raise StorageError(
                    f"{self._where}: the table at {self.uri} can't be written: {rules}.",
                    safe="Nothing was written; the table is as it was.",
                    hint="Remove that rule from the table, or write the asset to another one.",
                ) from rules
            else:
                return False
        raise AssertionError("the last attempt returns or raises")

    def _still_fits(self, write: _Write) -> bool:
        """Fit the rows to the table as it is now; return whether they have its types."""
        staged = write.staged.schema
        write.fit = self._fit(write.table, staged)
        return all(one.type.equals(write.fit.schema.field(one.name).type) for one in staged)

    def _attempt(self, write: _Write) -> None:
        table, fit = write.table, write.fit
        replaces_all = self._write.mode == "overwrite" and write.tests is None
        added = fit.added
        if fit.widened and not replaces_all:
            rewritten(table, fit.schema, doing=f"Widening columns of {self._where.lower()}")
            added = ()
        target = MergeTarget(
            self._name,
            table,
            fit.schema,
            () if replaces_all else added,
            replaces_schema=replaces_all and not fit.schema.equals(table.schema),
            noun="asset",
        )
        engine = engine_for(self._write.deletion_vectors)
        write.counts = engine.change(target, lambda at: self._planned(write, at), write.commit)

    def _planned(self, write: _Write, snapshot: Snapshot) -> RowChanges:
        """Plan the write on a version of the table."""
        mode, schema = self._write.mode, write.fit.schema
        counts = MergeCounts()
        if mode == "append":
            removed, write.removed = {}, 0
        elif mode == "merge" and write.keys is not None:
            located = write.keys.locate(snapshot, schema)
            removed, counts, write.removed = located.positions, located.counts, located.rows
        else:
            removed = (
                {file.path: all_rows_of(snapshot, file) for file in snapshot.files}
                if write.tests is None
                else rows_in_slice(snapshot, write.tests)
            )
            write.removed = sum(map(len, removed.values()))
        return RowChanges(
            removed,
            aligned(write.staged.rows, schema),
            counts,
            files=write.staged.files,
            operation="MERGE" if mode == "merge" else "WRITE",
            parameters={} if mode == "merge" else {"mode": mode.capitalize()},
        )

    def _ignored(self, table: Table) -> Iterator[str]:
        wanted = self._write.partition_by
        if wanted is not None and tuple(wanted) != table.partition_columns:
            yield (
                f"partition_by={list(wanted)!r} has no effect: the files of the table are "
                f"partitioned by {list(table.partition_columns)!r} since it was made."
            )


def _looked_at(result: Result) -> tuple[Result, bool]:
    """Return the same result, and whether it has a row; nothing is read beyond the first one."""
    for rows in result.batches:
        if len(rows):
            return replace(result, batches=chain([rows], result.batches)), True
    return replace(result, batches=iter(())), False


def _report(table: Table, before: Snapshot | None, *, already_written: bool) -> TableWritten:
    at = table.at
    return TableWritten(
        table.uri,
        at.version,
        rows=at.live_rows,
        columns=_columns(at.schema),
        columns_before=None if before is None else _columns(before.schema),
        already_written=already_written,
        files=len(at.files),
        size_bytes=sum(file.size_bytes for file in at.files),
    )


def _columns(schema: pa.Schema) -> tuple[tuple[str, str], ...]:
    return tuple((one.name, str(one.type)) for one in schema)
