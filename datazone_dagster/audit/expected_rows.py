"""Rows that the functions of a source make of items now: what its datasets have to show."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.api import Dataset, Transform
from datazone_dagster.apply.bad_records import keyed
from datazone_dagster.apply.chunk import CHANGES_SCHEMA
from datazone_dagster.apply.function import Function
from datazone_dagster.apply.tables import dataset_table, read_lookups
from datazone_dagster.changelog.chunks import CHUNK_COLUMNS
from datazone_dagster.changelog.schema import SCHEMA, BatchRows, ShardRecords
from datazone_dagster.dataset.contract_refusals import without_refused
from datazone_dagster.dataset.deletes import are_deletes
from datazone_dagster.dataset.row_hashes import ROWS, RowHashes, payload_names
from datazone_dagster.dataset.rows_of_keys import ShownDataset
from datazone_dagster.model.column_names import EVENT_TIME, HIDDEN, KEY, VERSION, Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.table_scan import ScannedItem
from datazone_dagster.model.version import row_version
from datazone_dagster.rows.conform import conform
from datazone_dagster.snapshot.scanned_records import ScannedRecords

OF_THE_RECORD = "it shows the change, not the item"
OF_A_LOOKUP = "it shows a lookup, as it was when the change was applied"
NOT_RETURNED = "the function does not return it"
NOT_IN_THE_TABLE = "the table does not have it yet"
DEPENDS_ON_THE_RECORD = (
    "which rows it has depends on more than the item, such as eventName or the old image"
)

PROBED_ROWS = 2_000
_LATER_SECONDS = 1
_ANY_EPOCH = 99_999_999


@dataclass
class Expected:
    """Rows of one dataset that its function makes of some items.

    Args:
        rows: The rows, as the dataset's table holds them.
        refused: Keys of the items that the function or the contract refuses.
    """

    rows: pa.Table
    refused: frozenset[str]


@dataclass
class Comparable:
    """What is known of one dataset about the comparison.

    Args:
        dataset: The dataset.
        columns: Columns that the function has returned.
        not_compared: Columns that depend on more than the item, each with the reason.
        depends_on_record: Whether the rows depend on more than the item.
        depends_on_lookup: Whether a lookup decides which rows there are.
    """

    dataset: Dataset
    columns: set[str] = field(default_factory=set)
    not_compared: dict[str, str] = field(default_factory=dict)
    depends_on_record: bool = False
    depends_on_lookup: bool = False


class ExpectedRows:
    """Calls one transform's function on items, as an apply would.

    A column may show the change instead of the item: `eventName` of a scanned item is SNAPSHOT. To
    find such columns, the function is called on the same items as other changes, and again
    with empty lookups. What differs then says nothing about the dataset.

    Args:
        transform: The transform.
        layout: Locations of the tables.
        records: Makes change records of items.
        hashes: Compares rows.
        memory_limit_bytes: DuckDB's memory limit.
        only: Ids of the datasets to return; the others are left out.
        logger: Logger.
    """

    def __init__(
        self,
        transform: Transform,
        layout: Layout,
        records: ScannedRecords,
        hashes: RowHashes,
        memory_limit_bytes: int,
        only: Sequence[str],
        logger: logging.Logger,
    ) -> None:
        self._layout = layout
        self._source = transform.source.name
        self._records = records
        self._hashes = hashes
        self._lookups = read_lookups(transform, layout).tables
        self.datasets = {
            output: Comparable(dataset)
            for output, dataset in transform.outputs.items()
            if dataset.id in only
        }
        first = next(iter(transform.outputs.values()))
        table = dataset_table(first, transform, layout, memory_limit_bytes)
        self._function = Function(
            transform, table.state(), memory_limit_bytes, logger, quarantine_limit=1.0
        )
        self._schemas: dict[str, ShownDataset] = {}

    def of_items(self, items: Sequence[ScannedItem], at: datetime) -> dict[str, Expected]:
        """Return the rows of items that were read at a time, by output."""
        return self.of_changes(changes_of(self._records.present(items, at)))

    def of_changes(self, changes: pa.Table) -> dict[str, Expected]:
        """Return the rows that changes lead to, by output; a delete leads to none."""
        result = self._evaluated(changes, self._lookups)
        expected = {}
        for output, (rows, refused) in result.items():
            self.datasets[output].columns.update(payload_names(rows.schema))
            expected[output] = Expected(rows, refused)
        return expected

    def probe(self, items: Sequence[ScannedItem], at: datetime) -> bool:
        """Find what depends on more than the items; return whether there is more than known.

        Args:
            items: Items to call the function on.
            at: Time of the items.
        """
        changes = changes_of(self._records.present(items, at))
        if not len(changes):
            return False
        before = self._known()
        plain = self._evaluated(changes, self._lookups)
        for variant in _variants(changes):
            self._learn(plain, self._evaluated(variant, self._lookups), OF_THE_RECORD)
        if self._lookups:
            empty = {name: table.slice(0, 0) for name, table in self._lookups.items()}
            self._learn(plain, self._evaluated(changes, empty), OF_A_LOOKUP)
        return self._known() != before

    def _known(self) -> list[tuple[object, ...]]:
        return [
            (len(one.not_compared), one.depends_on_record, one.depends_on_lookup)
            for one in self.datasets.values()
        ]

    def _learn(
        self,
        plain: Mapping[str, tuple[pa.Table, frozenset[str]]],
        other: Mapping[str, tuple[pa.Table, frozenset[str]]],
        reason: str,
    ) -> None:
        for output, comparable in self.datasets.items():
            refused = pa.array(sorted(plain[output][1] | other[output][1]), pa.string())
            one, two = (
                self._hashes.columns_of(rows.filter(pc.invert(pc.is_in(rows[KEY], refused))))
                .combine_chunks()
                .sort_by(KEY)
                for rows in (plain[output][0], other[output][0])
            )
            same_rows = one.select([KEY, ROWS]).equals(two.select([KEY, ROWS]))
            if not same_rows and reason == OF_THE_RECORD:
                comparable.depends_on_record = True
            elif not same_rows:
                comparable.depends_on_lookup = True
            else:
                for name in {*one.column_names, *two.column_names} - {KEY, ROWS}:
                    if not _same(one, two, name):
                        comparable.not_compared.setdefault(name, reason)

    def _evaluated(
        self, changes: pa.Table, lookups: Mapping[str, pa.Table]
    ) -> dict[str, tuple[pa.Table, frozenset[str]]]:
        result = self._function.evaluate(list(self.datasets), changes, lookups, "items of an audit")
        accepted = result.changes
        unreadable = changes[KEY].filter(
            pc.invert(pc.is_in(changes[KEY], accepted[KEY].combine_chunks()))
        )
        gone = accepted[KEY].filter(are_deletes(accepted)).combine_chunks()
        found = {}
        for output, comparable in self.datasets.items():
            rows = result.rows[output]
            rows = rows.filter(pc.invert(pc.is_in(rows[KEY], gone)))
            own, refused = self._as_written(comparable, accepted, rows)
            found[output] = (own, frozenset([*unreadable.to_pylist(), *refused]))
        return found

    def _as_written(
        self, comparable: Comparable, changes: pa.Table, rows: pa.Table
    ) -> tuple[pa.Table, list[str]]:
        """Return rows as an apply would write them, and the keys that the contract refuses."""
        dataset = comparable.dataset
        if dataset.id not in self._schemas:
            self._schemas[dataset.id] = ShownDataset(self._layout, self._source, dataset.id)
        shown = self._schemas[dataset.id]
        returned = [name for name in rows.column_names if name not in HIDDEN]
        conformed = conform(
            rows,
            shown.schema,
            dataset.contract,
            exempt=lambda: pa.chunked_array([pa.repeat(pa.scalar(False), len(rows))]),
            dataset_id=dataset.id,
            partition_by=shown.partition_by,
        )
        accepted, own, _ = without_refused(changes, conformed.rows, conformed.refused)
        taken = accepted[KEY].combine_chunks()
        refused = changes[KEY].filter(pc.invert(pc.is_in(changes[KEY], taken))).to_pylist()
        for name in returned:
            if name not in shown.schema.names:
                comparable.not_compared.setdefault(name, NOT_IN_THE_TABLE)
        kept = [one for one in (*returned, *HIDDEN) if one in own.column_names]
        return own.select(kept), refused


def changes_of(records: ShardRecords) -> pa.Table:
    """Return records with a usable key as a function receives them."""
    writer = BatchRows(1, 1)
    tables = [*writer.add(records), *writer.flush()]
    schema = pa.schema([SCHEMA.field(name) for name in CHUNK_COLUMNS])
    rows = pa.concat_tables(
        [schema.empty_table(), *(one.select(CHUNK_COLUMNS).cast(schema) for one in tables)]
    )
    return keyed(rows)[0].select(CHANGES_SCHEMA.names)


def _variants(changes: pa.Table) -> Iterator[pa.Table]:
    """Yield the same items as an update and as an insert, with other numbers and times."""
    rows = len(changes)
    numbers = [row_version(_ANY_EPOCH, number) for number in range(1, rows + 1)]
    later = pc.add(changes[EVENT_TIME], pa.scalar(_LATER_SECONDS * 1_000_000, pa.duration("us")))
    for name, old in (("MODIFY", changes[Log.NEW_IMAGE]), ("INSERT", pa.nulls(rows, pa.string()))):
        values: dict[str, object] = {
            Log.EVENT_NAME: pa.repeat(pa.scalar(name), rows),
            Log.EVENT_ID: pa.array([f"{name}-{number}" for number in range(rows)], pa.string()),
            Log.OLD_IMAGE: old,
            Log.VERSION: pa.array(numbers, pa.string()),
            VERSION: pa.array(numbers, pa.string()),
            Log.EVENT_TIME: later,
            EVENT_TIME: later,
            Log.VIEW_TYPE: pa.repeat(pa.scalar("NEW_AND_OLD_IMAGES"), rows),
            Log.SIZE_BYTES: pc.add(changes[Log.SIZE_BYTES], 1),
        }
        yield pa.Table.from_arrays(
            [values.get(one.name, changes[one.name]) for one in changes.schema],
            schema=changes.schema,
        )


def _same(one: pa.Table, two: pa.Table, name: str) -> bool:
    if name not in one.column_names or name not in two.column_names:
        return False
    return bool(one[name].equals(two[name]))
