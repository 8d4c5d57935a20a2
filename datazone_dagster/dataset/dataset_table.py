"""A dataset's table: its position in the change log, and how a chunk gets into it once.

The position is the Delta transaction version of `apply/<source>`, committed together with
the rows, so rows and position can't part.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Schema

from datazone_dagster.dataset.absorbed_changes import AbsorbedChanges
from datazone_dagster.dataset.contract_refusals import rows_of_deletes, without_refused
from datazone_dagster.dataset.facts import TableFacts, facts_of
from datazone_dagster.dataset.modes import (
    AppendMode,
    ChunkRows,
    HistoryMode,
    MergeMode,
    Mode,
    SoftMode,
    check_mode,
)
from datazone_dagster.dataset.properties import (
    ATTRIBUTES,
    MODE,
    UNEXPECTED,
    generation_of,
    property_of,
)
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.dataset.tombstones import Tombstones
from datazone_dagster.delta import (
    create_table,
    guarded,
    open_table,
    transaction,
)
from datazone_dagster.delta.commit import can_come_with_rows, set_properties
from datazone_dagster.delta.transaction_log import read_snapshot
from datazone_dagster.errors import ConcurrentWriterError, ResultError
from datazone_dagster.model.attributes import AttributeMapping
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.contract import OPEN, Contract
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.process import crash_points
from datazone_dagster.rows.align import with_fields
from datazone_dagster.rows.conform import Conformed, conform, first_schema
from datazone_dagster.rows.engine import MergeEngine, MergeTarget
from datazone_dagster.rows.engines import engine_for
from datazone_dagster.rows.overwrite import rewritten
from datazone_dagster.rows.versions import has_rows

KIND = "dataset"


@dataclass(frozen=True)
class ChunkWritten:
    """One chunk in a dataset: what changed and what the table is now."""

    counts: MergeCounts
    table_version: int
    added_columns: tuple[str, ...]
    quarantined: int = 0


class DatasetTable:
    """The table of one dataset, written by one transform from one source."""

    def __init__(
        self,
        layout: Layout,
        dataset_id: str,
        source: str,
        *,
        mode: Literal["merge", "append", "history"],
        deletes: Literal["hard", "soft"] = "hard",
        track: tuple[str, ...] = (),
        partition_by: tuple[str, ...] = (),
        description: str | None = None,
        contract: Contract = OPEN,
        deletion_vectors: Literal["auto"] | bool = "auto",
        engine: MergeEngine | None = None,
    ) -> None:
        self.uri = layout.dataset(dataset_id)
        self._source = source
        self.app_id = f"apply/{source}"
        self.redrive_app_id = f"redrive/{source}"
        self._storage_options = dict(layout.storage_options)
        self._dataset_id = dataset_id
        self._partition_by = partition_by
        self._description = description
        self._contract = contract
        self._quarantine = Quarantine(layout, dataset_id)
        engine = engine or engine_for(deletion_vectors)
        tombstones = Tombstones(layout, dataset_id)
        self._mode: Mode
        if mode == "append":
            self._mode = AppendMode()
        elif mode == "history":
            unseen = AbsorbedChanges(layout, dataset_id)
            self._mode = HistoryMode(engine, unseen, track, soft=deletes == "soft")
        elif deletes == "soft":
            self._mode = SoftMode(engine, tombstones)
        else:
            self._mode = MergeMode(engine, tombstones)

    def position(self) -> int:
        """The last batch that is in the table; 0 if none is."""
        table = self._open()
        return 0 if table is None else self._position_of(table)

    def redriven(self) -> int:
        """The number of the last redrive that is in the table; 0 if none is."""
        table = self._open()
        return 0 if table is None else self._redriven_in(table)

    def facts(self) -> TableFacts | None:
        """Version, size and columns of the table, without reading its data."""
        table = self._open()
        if table is None:
            return None
        snapshot = read_snapshot(table, self._storage_options)
        return facts_of(snapshot, schema_of(table), self._unexpected(table))

    def attributes(self) -> AttributeMapping:
        """Which item attributes are which columns, as saved with the table."""
        table = self._open()
        return AttributeMapping() if table is None else self._saved_attributes(table)

    def apply(
        self,
        changes: pa.Table,
        rows: pa.Table,
        *,
        after_batch: int,
        through_batch: int,
        now: datetime,
        attributes: AttributeMapping = AttributeMapping(),
    ) -> ChunkWritten:
        """Put one chunk into the table, in one commit that also moves the position.

        Args:
            changes: The chunk that the function was given, with the hidden columns.
            rows: What the function returned of it, with the hidden columns.
            after_batch: The position that the chunk starts from.
            through_batch: The position that it reaches.
            now: The time, for tombstones.
            attributes: Kept with the table, before the rows; harmless if they then fail.

        Raises:
            ConcurrentWriterError: The table is not at `after_batch`, or someone commits
                meanwhile. Nothing was written.
            SchemaChangeError: A column changed to a type that the table can't take.
            ResultError: The rows are not of this chunk.
            StorageError: The store failed.
        """
        table = self._open() or self._create(rows)
        if self._position_of(table) != after_batch:
            raise ConcurrentWriterError(
                f"Dataset {self._dataset_id!r} is at batch {self._position_of(table)}, not at "
                f"{after_batch}: another run has applied changes meanwhile.",
                safe="Nothing of this attempt was written; the other run's work stands.",
            )
        commit = transaction(self.app_id, through_batch)
        return self._put(table, changes, rows, commit, now, attributes, through_batch)

    def redrive(
        self,
        changes: pa.Table,
        rows: pa.Table,
        *,
        after_redrive: int,
        number: int,
        now: datetime,
        attributes: AttributeMapping = AttributeMapping(),
    ) -> ChunkWritten:
        """Put quarantined changes into the table, in one commit that also says so.

        A row of a key with a newer version stays; an event that an append table has is not
        added again.

        Args:
            changes: As for `apply`; all of them from batches that the table has passed.
            rows: What the function returned of them.
            after_redrive: The last redrive that the table is known to have.
            number: The number of this one.
            now: The time, for tombstones.
            attributes: As for `apply`.

        Raises:
            ConcurrentWriterError: The table has another redrive, has not passed the changes, or
                someone commits meanwhile. Nothing was written.
            SchemaChangeError: As for `apply`.
            StorageError: The store failed.
        """
        table = self._open() or self._create(rows)
        newest = pc.max(changes[Log.BATCH]).as_py() or 0
        if self._redriven_in(table) != after_redrive or self._position_of(table) < newest:
            raise ConcurrentWriterError(
                f"Dataset {self._dataset_id!r} changed while records were about to be redriven.",
                safe="Nothing of this attempt was written; the records wait in the quarantine.",
            )
        if isinstance(self._mode, AppendMode):
            rows = rows.filter(pc.invert(has_rows(table, self._storage_options, rows)))
        commit = transaction(self.redrive_app_id, number)
        return self._put(table, changes, rows, commit, now, attributes, newest)

    def fitting(self, changes: pa.Table, rows: pa.Table) -> tuple[pa.Table, pa.Table, pa.Table]:
        """The changes and rows that the contract lets in, and the other changes with a `reason`.

        Raises:
            SchemaChangeError: As for `apply`.
            StorageError: The table can't be read.
        """
        table = self._open()
        return without_refused(changes, rows, self._conformed(table, changes, rows).refused)

    def _conformed(self, table: DeltaTable | None, changes: pa.Table, rows: pa.Table) -> Conformed:
        return conform(
            with_fields(rows, self._mode.fields),
            self._first_schema(rows) if table is None else schema_of(table),
            self._contract,
            exempt=rows_of_deletes(changes, rows),
            dataset_id=self._dataset_id,
            partition_by=(
                self._partition_by if table is None else table.metadata().partition_columns
            ),
        )

    def _put(
        self,
        table: DeltaTable,
        changes: pa.Table,
        rows: pa.Table,
        commit: CommitProperties,
        now: datetime,
        attributes: AttributeMapping,
        batch: int,
    ) -> ChunkWritten:
        check_mode(self._dataset_id, self._mode.name, self._saved(table, MODE))
        applied = self._position_of(table), self._redriven_in(table)
        conformed = self._conformed(table, changes, rows)
        changes, rows, refused = without_refused(changes, conformed.rows, conformed.refused)
        quarantined = self._quarantine.put(refused, now)
        added = self._change_schema(table, conformed)
        self._store_properties(table, attributes, conformed.unexpected, batch)
        # These commits move the handle, perhaps past one of another run.
        if (self._position_of(table), self._redriven_in(table)) != applied:
            raise ConcurrentWriterError(
                f"Dataset {self._dataset_id!r}: another run has applied changes meanwhile.",
                safe="No row of this attempt was written; the other run's work stands.",
                hint="This one gives way and goes on from the new state next time.",
            )
        target = MergeTarget(
            self._dataset_id, self.uri, self._storage_options, table, conformed.schema, added
        )
        counts = self._mode.write(target, ChunkRows(changes, rows, now), commit)
        crash_points.reach(crash_points.AFTER_DATASET_COMMIT)
        return ChunkWritten(
            counts,
            table.version(),
            tuple(field.name for field in conformed.added),
            quarantined,
        )

    def _change_schema(self, table: DeltaTable, conformed: Conformed) -> tuple[pa.Field, ...]:
        """Do what can't be done in the commit of the rows; the columns that come with it."""
        if conformed.widened:
            doing = f"Widening columns of dataset {self._dataset_id!r}"
            rewritten(table, conformed.schema, doing=doing)
            crash_points.reach(crash_points.AFTER_WIDENING)
            return ()
        if can_come_with_rows(conformed.added):
            return conformed.added
        with guarded(self.uri, f"Adding columns to dataset {self._dataset_id!r}"):
            fields = Schema.from_arrow(pa.schema(conformed.added)).fields
            table.alter.add_columns(list(fields))
        return ()

    def _store_properties(
        self,
        table: DeltaTable,
        attributes: AttributeMapping,
        unexpected: Sequence[tuple[str, str]],
        batch: int,
    ) -> None:
        """What the table knows beside its rows. Only what is new is a commit."""
        known = {name: (kind, since) for name, kind, since in self._unexpected(table)}
        noted = {name: (kind, batch) for name, kind in unexpected} | known
        properties: dict[str, str] = {}
        if noted != known:
            properties[self._name(table, UNEXPECTED)] = json.dumps(noted)
        saved = self._saved_attributes(table)
        dated = attributes.dated(saved, batch)
        if len(attributes) and dated != saved:
            properties[self._name(table, ATTRIBUTES)] = dated.to_json()
        if properties:
            set_properties(table, self._storage_options, properties)

    def _name(self, table: DeltaTable, name: str) -> str:
        return property_of(name, generation_of(table, self._source))

    def _saved(self, table: DeltaTable, name: str) -> str | None:
        return table.metadata().configuration.get(self._name(table, name))

    def _saved_attributes(self, table: DeltaTable) -> AttributeMapping:
        saved = self._saved(table, ATTRIBUTES)
        return AttributeMapping.from_json(saved) if saved else AttributeMapping()

    def _unexpected(self, table: DeltaTable) -> tuple[tuple[str, str, int], ...]:
        """Those of the noted columns that the table still does not have."""
        noted = json.loads(self._saved(table, UNEXPECTED) or "{}")
        held = set(schema_of(table).names)
        return tuple(
            (name, str(kind), int(since))
            for name, (kind, since) in noted.items()
            if name not in held
        )

    def _open(self) -> DeltaTable | None:
        return open_table(self.uri, self._storage_options, KIND)

    def _position_of(self, table: DeltaTable) -> int:
        return table.transaction_version(self.app_id) or 0

    def _redriven_in(self, table: DeltaTable) -> int:
        return table.transaction_version(self.redrive_app_id) or 0

    def _first_schema(self, rows: pa.Table) -> pa.Schema:
        fields = with_fields(rows.schema.empty_table(), self._mode.fields).schema
        return first_schema(fields, self._contract)

    def _create(self, rows: pa.Table) -> DeltaTable:
        schema = self._first_schema(rows)
        missing = [name for name in self._partition_by if name not in schema.names]
        if missing:  # delta-rs would make a table that nobody can open
            raise ResultError(
                f"Dataset {self._dataset_id!r} is partitioned by {missing[0]!r}, which the "
                "function does not return.",
                safe="Nothing of the chunk was applied; the change log keeps it.",
                hint="Return that column, declare it in Dataset(schema=...), or name another in "
                "Dataset(partition_by=[...]).",
            )
        return create_table(
            self.uri,
            self._storage_options,
            KIND,
            schema,
            partition_by=self._partition_by,
            configuration={MODE: self._mode.name},
            description=self._description,
        )


def schema_of(table: DeltaTable) -> pa.Schema:
    """The table's schema in Arrow types as we write them."""
    return pa.schema(table.schema().to_arrow())
