"""Absorbed changes: those that no row of a history table shows, stored for late arrivals.

They are deletes, and changes that equal their neighbour. A late change is planned from them
and the rows as if it had arrived in time. They are written before the commit that needs them and
expire after the retention of a companion table; a change that arrives later than that is ordered
by its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial

import pyarrow as pa

from datazone_dagster.dataset.companion_table import CompanionTable, Stamps
from datazone_dagster.delta import guarded, transaction
from datazone_dagster.delta.commit import can_come_with_rows
from datazone_dagster.delta.table import Table
from datazone_dagster.delta.write_table import add_columns
from datazone_dagster.errors import SchemaChangeError
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.model.contract import OPEN
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket, bucket_named
from datazone_dagster.model.layout import Layout
from datazone_dagster.rows.align import aligned
from datazone_dagster.rows.conform import conform
from datazone_dagster.rows.merge_batch import CAUSE
from datazone_dagster.rows.overwrite import replace_rows, rewritten

KIND = "unseen"

_STAMPS = Stamps(day="_dz_day", epoch="_dz_epoch", rank="_dz_rank")
"""The prefix keeps them apart from columns of a result."""
_PUT = "_dz_put"
"""Number of the commit: if a change is stored twice, the later commit counts."""
_CAUSE = "_dz_cause"
_APP_ID = "unseen"
"""Application id of the puts; those of a bucket have its name behind it."""

_OURS = frozenset({_STAMPS.day, _STAMPS.epoch, _STAMPS.rank, _PUT, _CAUSE})
"""Columns that a change does not have."""


class AbsorbedChanges:
    """The absorbed changes of one history dataset, as a run of a bucket stores them."""

    def __init__(
        self, layout: Layout, dataset_id: str, source: str, bucket: KeyBucket = WHOLE
    ) -> None:
        self._dataset_id = dataset_id
        self._app_id = _app_id_of(bucket)
        self._independent = None if bucket.is_whole else partial(_is_of_others, bucket)
        self._companion = CompanionTable(
            layout,
            dataset_id,
            source,
            layout.absorbed_changes(dataset_id),
            kind=KIND,
            stamps=_STAMPS,
            contents="absorbed changes",
        )

    def begin(self) -> None:
        """See `CompanionTable.begin`."""
        self._companion.begin()

    def since(self, version: str, keys: pa.Array, payload: pa.Schema) -> pa.Table:
        """Return changes of these keys: all from this version on, perhaps lower ones too."""
        return self._of_keys(keys, payload, lowest=version)

    def for_keys(self, keys: pa.Array, payload: pa.Schema) -> pa.Table:
        """Return every change of these keys, in the columns of `payload` and `cause`.

        A change that was stored again, because the function or its neighbours changed, is
        returned as it was stored last.
        """
        return self._of_keys(keys, payload, lowest=None)

    def copy_from(self, other: AbsorbedChanges, now: datetime) -> None:
        """Add the changes of another table; a change that both have is taken from the other.

        If the types of its columns do not fit the types here, its changes replace all of this
        table.
        """
        table = other._companion.open()
        if table is None:
            return
        payload = pa.schema([field for field in table.schema if field.name not in _OURS])
        changes = other._read(table, payload)
        try:
            self.put(changes, now)
        except SchemaChangeError:
            own = self._companion.open()
            assert own is not None  # only an existing table has other columns
            put = _last_put(own) + 1
            rows = _stamped(changes, put, now)
            doing = f"Replacing absorbed changes of dataset {self._dataset_id!r}"
            self._companion.require_erasures(own)
            with guarded(self._companion.uri, doing), own.by_delta_rs() as handle:
                replace_rows(
                    handle,
                    iter([rows]),
                    rows.schema,
                    transaction(self._app_id, put),
                    partition_by=[_STAMPS.day],
                )

    def put(self, changes: pa.Table, now: datetime) -> None:
        """Store changes in the form of `HistoryPlan.absorbed`.

        Args:
            changes: The columns of the function's result, the hidden ones, and `cause`.
            now: The current time, for the retention.

        Raises:
            ConcurrentWriterError: Another run stored absorbed changes meanwhile.
            SchemaChangeError: A column changed to a type that the stored one can't hold.
            StorageError: The store failed.
        """
        if not len(changes):
            return
        rows = _stamped(changes, 0, now)
        table = self._companion.open_or_create(
            rows.schema, f"Changes that no row of dataset {self._dataset_id} shows"
        )
        doing = f"Storing absorbed changes of dataset {self._dataset_id!r}"
        with guarded(self._companion.uri, doing):
            put = _last_put(table) + 1
            schema, added = self._fitted(table, rows)
            rows = aligned(rows, schema, {_PUT: pa.scalar(put)})
            self._companion.append(
                table,
                rows,
                now,
                transaction(self._app_id, put),
                added=added,
                independent=self._independent,
            )

    def _fitted(self, table: Table, rows: pa.Table) -> tuple[pa.Schema, Sequence[pa.Field]]:
        """Widen the table's columns, and add those that can't come with the rows.

        Returns:
            The schema with all columns of the rows, and the columns that come with them.
        """
        plan = conform(
            rows,
            table.schema,
            OPEN,
            exempt=lambda: pa.repeat(pa.scalar(False), len(rows)),
            dataset_id=self._dataset_id,
        )
        if plan.widened:
            doing = f"Widening columns of the absorbed changes of {self._dataset_id!r}"
            rewritten(table, plan.schema, doing=doing)
            return plan.schema, ()
        if plan.added and not can_come_with_rows(plan.added):
            with table.by_delta_rs() as handle:
                add_columns(handle, plan.added)
            return plan.schema, ()
        return plan.schema, plan.added

    def _of_keys(self, keys: pa.Array, payload: pa.Schema, lowest: str | None) -> pa.Table:
        table = self._companion.begun()
        if table is None or not len(keys):
            return payload.append(pa.field(CAUSE, pa.string())).empty_table()
        return self._read(table, payload, keys, lowest)

    def _read(
        self,
        table: Table,
        payload: pa.Schema,
        keys: pa.Array | None = None,
        lowest: str | None = None,
    ) -> pa.Table:
        wanted = payload.append(pa.field(CAUSE, pa.string()))
        rows = self._companion.read(table, table.schema, keys, lowest=lowest)
        return aligned(_renamed(_stored_last(rows), {_CAUSE: CAUSE}), wanted)


def _app_id_of(bucket: KeyBucket) -> str:
    return _APP_ID if bucket.is_whole else f"{_APP_ID}/{bucket.name}"


def _last_put(table: Table) -> int:
    """Return the highest number of a put so far, of any bucket: a key's next one is higher."""
    return max((put for of, put in table.at.transactions.items() if _bucket_of(of)), default=0)


def _bucket_of(app_id: str) -> KeyBucket | None:
    own = app_id == _APP_ID
    return WHOLE if own else bucket_named(app_id.removeprefix(f"{_APP_ID}/"))


def _is_of_others(bucket: KeyBucket, app_id: str) -> bool:
    """Return whether an application id stores changes of other keys than those of a bucket."""
    of = _bucket_of(app_id)
    return of is not None and not of.overlaps(bucket)


def _stamped(changes: pa.Table, put: int, now: datetime) -> pa.Table:
    """Return changes with the columns that the table adds to them."""
    rows = _renamed(changes, {CAUSE: _CAUSE})
    values = {_PUT: pa.scalar(put, pa.int64()), **_STAMPS.values(rows[VERSION], now)}
    schema = pa.schema([*rows.schema, pa.field(_PUT, pa.int64()), *_STAMPS.fields])
    return aligned(rows, schema, values)


def _stored_last(rows: pa.Table) -> pa.Table:
    """Return the rows of each change that were stored last, in the same order."""
    latest = rows.group_by([KEY, VERSION]).aggregate([(_PUT, "max")])
    latest = latest.rename_columns([KEY, VERSION, _PUT])
    at = rows.select([KEY, VERSION, _PUT]).append_column(
        "at", pa.array(range(len(rows)), pa.int64())
    )
    newest = at.join(latest, keys=[KEY, VERSION, _PUT], join_type="left semi")
    return rows.take(newest["at"].combine_chunks().sort())


def _renamed(table: pa.Table, names: dict[str, str]) -> pa.Table:
    return table.rename_columns([names.get(name, name) for name in table.column_names])
