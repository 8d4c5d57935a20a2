"""The changes that no row of a history table shows, kept for as long as late ones may come.

Deletes, and changes that equal their neighbour: from them and the rows a late change is
planned as if it had come in time. Written before the commit that needs them: should that
commit fail, they only repeat what the change log says. They go after a retention, by dropping
whole days; a change that comes later than that is placed by its time.
"""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, Schema, WriterProperties, write_deltalake

from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.dataset.tombstones import (
    RETENTION,
    day_of,
    expire_days,
    version_numbers,
)
from datazone_dagster.delta import create_table, guarded, open_table, transaction
from datazone_dagster.delta.read_file import live_batches
from datazone_dagster.delta.transaction_log import LiveFile, read_snapshot
from datazone_dagster.errors import SchemaChangeError
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.model.contract import OPEN
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.version import split_version
from datazone_dagster.rows.align import aligned
from datazone_dagster.rows.conform import conform
from datazone_dagster.rows.merge_batch import CAUSE
from datazone_dagster.rows.overwrite import replace_rows, rewritten

KIND = "unseen"

_DAY, _EPOCH, _RANK = "_dz_day", "_dz_epoch", "_dz_rank"
"""As in the table of tombstones; named so that no column of a result can be them."""
_PUT = "_dz_put"
"""Counts the commits: of a change that was put aside twice the later one counts."""
_CAUSE = "_dz_cause"
_APP_ID = "unseen"

_CONFIGURATION = {
    "delta.dataSkippingStatsColumns": f"{_EPOCH},{_RANK}",
    "delta.logRetentionDuration": "interval 1 days",
    "delta.deletedFileRetentionDuration": "interval 1 days",
}


class AbsorbedChanges:
    """The unseen changes of one history dataset."""

    def __init__(self, layout: Layout, dataset_id: str) -> None:
        self.uri = layout.unseen(dataset_id)
        self._storage_options = dict(layout.storage_options)
        self._dataset_id = dataset_id
        self._quarantine = Quarantine(layout, dataset_id)

    def since(self, version: str, keys: pa.Array, payload: pa.Schema) -> pa.Table:
        """Changes of these keys; all that have this version or a higher one, maybe more."""
        return self._read(keys, payload, lowest=version)

    def of(self, keys: pa.Array, payload: pa.Schema) -> pa.Table:
        """Every change of these keys, in the columns of `payload` and `cause`.

        A change that was put aside again, because the function or its neighbours changed,
        comes as it was last.
        """
        return self._read(keys, payload, lowest=None)

    def absorb(self, other: AbsorbedChanges, now: datetime) -> None:
        """Keep the changes of another table, too; of a change that both have its form is kept.

        What is here stays as far as it fits their columns, and goes where it does not.
        """
        table = other._open()
        if table is None:
            return
        stamps = {_DAY, _EPOCH, _RANK, _PUT, _CAUSE}
        held = pa.schema(table.schema().to_arrow())
        payload = pa.schema([field for field in held if field.name not in stamps])
        keys = pa.RecordBatchReader.from_stream(table.scan(columns=[KEY])).read_all()[KEY]
        changes = other.of(pc.unique(keys.cast(pa.string())), payload)
        try:
            self.put(changes, now)
        except SchemaChangeError:
            mine = self._open()
            assert mine is not None  # only an existing table has other columns
            put = (mine.transaction_version(_APP_ID) or 0) + 1
            rows = _stamped(changes, put, now)
            with guarded(self.uri, f"Replacing unseen changes of dataset {self._dataset_id!r}"):
                replace_rows(
                    mine,
                    iter([rows]),
                    rows.schema,
                    transaction(_APP_ID, put),
                    partition_by=[_DAY],
                )

    def put(self, changes: pa.Table, now: datetime) -> None:
        """Keep changes, as a `HistoryPlan` has them.

        Args:
            changes: The columns of the function's result, the hidden ones, and `cause`.
            now: The time, for the retention.

        Raises:
            ConcurrentWriterError: Another run put changes aside meanwhile.
            SchemaChangeError: A column changed to a type that was not there before.
            StorageError: The store failed.
        """
        if not len(changes):
            return
        table = self._open() or create_table(
            self.uri,
            self._storage_options,
            KIND,
            _stamped(changes.schema.empty_table(), 0, now).schema,
            partition_by=(_DAY,),
            configuration=_CONFIGURATION,
            description=f"Changes that no row of dataset {self._dataset_id} shows, for "
            f"{RETENTION.days} days. Written by datazone_dagster only.",
        )
        with guarded(self.uri, f"Keeping unseen changes of dataset {self._dataset_id!r}"):
            schema = pa.schema(table.schema().to_arrow())
            rows = _stamped(changes, 0, now)
            nothing = pa.repeat(pa.scalar(False), len(rows))
            plan = conform(rows, schema, OPEN, exempt=nothing, dataset_id=self._dataset_id)
            if plan.widened:
                doing = f"Widening columns of the unseen changes of {self._dataset_id!r}"
                rewritten(table, plan.schema, doing=doing)
            elif plan.added:
                table.alter.add_columns(list(Schema.from_arrow(pa.schema(plan.added)).fields))
            put = (table.transaction_version(_APP_ID) or 0) + 1
            write_deltalake(
                table,
                aligned(_stamped(changes, put, now), plan.schema),
                mode="append",
                writer_properties=WriterProperties(compression="ZSTD", compression_level=1),
                commit_properties=transaction(_APP_ID, put),
            )
            expire_days(table, now, self._quarantine, _DAY)

    def _open(self) -> DeltaTable | None:
        return open_table(self.uri, self._storage_options, KIND)

    def _read(self, keys: pa.Array, payload: pa.Schema, lowest: str | None) -> pa.Table:
        wanted = payload.append(pa.field(CAUSE, pa.string()))
        table = self._open()
        if table is None or not len(keys):
            return wanted.empty_table()
        # Not by delta-rs: of tables with binary and nested columns it tells no statistics.
        snapshot = read_snapshot(table, self._storage_options)
        schema = pa.schema(table.schema().to_arrow())
        with guarded(self.uri, f"Reading unseen changes of dataset {self._dataset_id!r}"):
            rows = pa.Table.from_batches(
                [
                    batch.filter(pc.is_in(batch.column(KEY), keys))
                    for file in snapshot.files
                    if lowest is None or _may_hold(file, *split_version(lowest))
                    for batch in live_batches(snapshot, file, schema, snapshot.deleted_in(file))
                ],
                schema,
            )
        latest = rows.group_by([KEY, VERSION]).aggregate([(_PUT, "max")])
        latest = latest.rename_columns([KEY, VERSION, _PUT])
        at = rows.select([KEY, VERSION, _PUT]).append_column(
            "at", pa.array(range(len(rows)), pa.int64())
        )
        kept = at.join(latest, keys=[KEY, VERSION, _PUT], join_type="left semi")
        rows = rows.take(kept["at"].combine_chunks().sort())
        return aligned(_renamed(rows, {_CAUSE: CAUSE}), wanted)


def _may_hold(file: LiveFile, epoch: int, sequence_number: int) -> bool:
    """Whether a file may hold this version or a higher one."""
    highest = file.maximum.get(_EPOCH), file.maximum.get(_RANK)
    return None in highest or highest >= (epoch, float(sequence_number))


def _stamped(changes: pa.Table, put: int, now: datetime) -> pa.Table:
    epochs, ranks = version_numbers(changes[VERSION])
    return (
        _renamed(changes, {CAUSE: _CAUSE})
        .append_column(_PUT, pa.repeat(pa.scalar(put, pa.int64()), len(changes)))
        .append_column(_DAY, pa.repeat(day_of(now), len(changes)))
        .append_column(_EPOCH, epochs)
        .append_column(_RANK, ranks)
    )


def _renamed(table: pa.Table, names: dict[str, str]) -> pa.Table:
    return table.rename_columns([names.get(name, name) for name in table.column_names])
