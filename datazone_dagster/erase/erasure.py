"""The erasure: change log first, then each dataset and its companions, then a last search.

The order makes it safe beside running drains and applies. Once the change log is clean, only a
run that read it before has erased rows in memory; the mark on the dataset makes that run lose its
commit race. The last search proves the result, and repeats the work where something came back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from datazone_dagster.api import DynamoDBSource, KinesisSource
from datazone_dagster.changelog.erase_log import erasable_log, key_names
from datazone_dagster.changelog.erased_events import KEPT_NUMBERS
from datazone_dagster.dataset.erase_dataset import datasets_of, erasable_tables
from datazone_dagster.delta.store import TableStore
from datazone_dagster.erase.erased_keys import ErasedKeys, check_names
from datazone_dagster.model.column_names import KEY, Log
from datazone_dagster.model.erasure_report import ErasureReport, TableErasure
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.rows.erase_rows import (
    ErasableTable,
    RowsErased,
    Search,
    erase_rows,
    has_rows,
    look,
)

PASSES = 5
"""Passes over all tables; the last one has to find nothing."""

_STREAM = (
    "The DynamoDB stream: it holds the changes of the item, its deletion included, for 24 hours."
)
_KINESIS = (
    "The Kinesis stream {stream}: it holds the changes of the item, its deletion included, for its "
    "retention, which is 24 hours to a year; datazone-dagster doctor shows it. A change that had "
    "landed is refused if it comes again, by the number of its event. One that comes late, for the "
    "first time, lands, and the row may come back: run this command again once the retention has "
    "passed, or after you shortened it."
)


_FORGOTTEN = (
    "A second delivery of {count:,} older changes of erased items: the change log keeps the newest "
    "{kept:,} numbers of events. They come back if the stream delivers them again: run this "
    "command again once its retention has passed."
)


def _unreachable(source: DynamoDBSource) -> tuple[str, ...]:
    """Return the places that an erasure does not reach."""
    return (
        "DynamoDB itself: the item has to be deleted there first, or its next change brings it "
        "back.",
        _KINESIS.format(stream=source.stream_name)
        if isinstance(source, KinesisSource)
        else _STREAM,
        "Exports, backups and point-in-time recovery of the DynamoDB table.",
        "Copies that your functions made: values of the item in rows of other keys, and tables "
        "that others derived from these.",
        "Versions, snapshots and backups of deleted files in your object store or file system.",
    )


class Erasure:
    """One erasure of some keys of a source.

    Args:
        source: The source.
        layout: Locations of the tables.
        keys: The keys.
        clock: Returns the current time.

    Raises:
        DefinitionError: A key does not have the attributes of the table's key.
        StorageError: The lakehouse can't be read.
    """

    def __init__(
        self, source: DynamoDBSource, layout: Layout, keys: ErasedKeys, clock: Clock
    ) -> None:
        self._source = source
        self._layout = layout
        self._keys = keys
        self._clock = clock
        self._forgotten = 0
        self._by_key = Search((KEY,), keys.in_rows)
        self._by_record = Search((Log.KEYS, Log.RAW), keys.in_records)
        check_names(keys, key_names(layout, source.name))

    @property
    def values(self) -> frozenset[str]:
        """All values of the keys, as texts."""
        return self._keys.values

    def plan(self) -> ErasureReport:
        """Search every table; write nothing."""
        report = self._report()
        for name, table in self._tables():
            found = look(table, self._clock())
            if found is not None:
                report = _with(report, name, table.uri, found)
        return self._with_rebuilds(report, delete=False)

    def run(self) -> ErasureReport:
        """Erase, and search again until nothing is found.

        It is safe to interrupt and to repeat.

        Raises:
            ConcurrentWriterError: Others committed first in every attempt, or have to.
            StorageError: The store failed.
        """
        report = self._report()
        for number in range(PASSES):
            again = self._pass(marked=number == 0)
            report = _added(report, again)
            if not any(one.files or one.old_files for one in again.tables):
                is_left = bool(again.young_files or again.blocked)
                return self._told(replace(report, done=not is_left))
        return self._told(report)

    def _forgets(self, count: int) -> None:
        self._forgotten = max(self._forgotten, count)  # each attempt counts anew

    def _told(self, report: ErasureReport) -> ErasureReport:
        """Return the report with what a stream may bring back, if that is known."""
        if not self._forgotten:
            return report
        text = _FORGOTTEN.format(count=self._forgotten, kept=KEPT_NUMBERS)
        return replace(report, unreachable=(*report.unreachable, text))

    def _pass(self, *, marked: bool) -> ErasureReport:
        report = self._report()
        for name, table in self._tables():
            done = erase_rows(table, self._clock(), marked=marked)
            if done is not None:
                report = _with(report, name, table.uri, done)
        return self._with_rebuilds(report, delete=True)

    def _report(self) -> ErasureReport:
        return ErasureReport(
            self._source.name, len(self._keys.keys), (), (), unreachable=_unreachable(self._source)
        )

    def _tables(self) -> Iterator[tuple[str, ErasableTable]]:
        log = self._layout, self._source.name, self._by_record, self._forgets
        yield "change log", erasable_log(*log)
        for dataset_id in self._datasets():
            yield from erasable_tables(
                self._layout,
                dataset_id,
                self._source.name,
                self._clock,
                by_key=self._by_key,
                by_record=self._by_record,
            ).items()

    def _datasets(self) -> list[str]:
        return datasets_of(self._layout, self._source.name)

    def _with_rebuilds(self, report: ErasureReport, *, delete: bool) -> ErasureReport:
        """Add the unfinished rebuilds that have rows of the keys; they are deleted as a whole."""
        for dataset_id in self._datasets():
            uri, options = self._layout.rebuilds(dataset_id), self._layout.storage_options
            if any(has_rows(uri, options, search) for search in (self._by_key, self._by_record)):
                if delete:
                    TableStore(uri, options).delete_all()
                found = RowsErased(old_files=1)
                report = _with(report, f"unfinished rebuilds of {dataset_id}", uri, found)
        return report


def _with(report: ErasureReport, name: str, uri: str, done: RowsErased) -> ErasureReport:
    table = TableErasure(
        table=name,
        uri=uri,
        rows=done.rows,
        files=done.files,
        size_bytes=done.size_bytes,
        old_files=done.old_files,
        young_files=done.young_files,
        log_files=done.log_files,
        blocked=done.blocked,
    )
    found = tuple(sorted({*report.found, *done.found}))
    return replace(report, tables=(*report.tables, table), found=found)


def _added(report: ErasureReport, again: ErasureReport) -> ErasureReport:
    """Return the sums of two passes; what is left is that of the second."""
    tables = {table.table: table for table in report.tables}
    for one in again.tables:
        before = tables.get(one.table, TableErasure(one.table, one.uri))
        tables[one.table] = replace(
            one,
            rows=before.rows + one.rows,
            files=before.files + one.files,
            size_bytes=before.size_bytes + one.size_bytes,
            old_files=before.old_files + one.old_files,
            log_files=before.log_files + one.log_files,
        )
    found = tuple(sorted({*report.found, *again.found}))
    return replace(report, tables=tuple(tables.values()), found=found)
