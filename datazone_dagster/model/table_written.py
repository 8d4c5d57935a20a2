"""Report of what a run wrote into the table of an asset."""

from __future__ import annotations

from dataclasses import dataclass

from datazone_dagster.model.report import MaintenanceReport


@dataclass(frozen=True, slots=True)
class TableWritten:
    """What a result changed in the table of its asset, and the table after it.

    Args:
        uri: Location of the table; the folder may not exist if `table_version` is None.
        table_version: Version of the table; None if there is no table, as the first result had no
            columns.
        rows: Rows of the table.
        rows_written: Rows of the result that were stored.
        rows_removed: Rows that the commit removed, those with a new version among them.
        keys_inserted: Keys that the table did not have; 0 unless in mode merge.
        keys_updated: Keys whose rows were replaced; 0 unless in mode merge.
        keys_deleted: Keys that `delete_where` removed; 0 unless in mode merge.
        columns: Names and types of the table's columns.
        columns_before: Those before the run; None if there was no table.
        columns_missing: Columns of the table that the result lacks: null in its rows.
        columns_untyped: Columns of the result that hold nulls only, of no type: left out.
        times_as_utc: Columns whose timestamps had no zone and were taken as UTC.
        already_written: Whether an earlier attempt of this step had written the result.
        files: Files of the table.
        size_bytes: Their size.
        notes: What was left out of the result, in sentences.
        maintenance: Maintenance after the write; None if it failed or had nothing to look at.
    """

    uri: str
    table_version: int | None
    rows: int = 0
    rows_written: int = 0
    rows_removed: int = 0
    keys_inserted: int = 0
    keys_updated: int = 0
    keys_deleted: int = 0
    columns: tuple[tuple[str, str], ...] = ()
    columns_before: tuple[tuple[str, str], ...] | None = None
    columns_missing: tuple[str, ...] = ()
    columns_untyped: tuple[str, ...] = ()
    times_as_utc: tuple[str, ...] = ()
    already_written: bool = False
    files: int = 0
    size_bytes: int = 0
    notes: tuple[str, ...] = ()
    maintenance: MaintenanceReport | None = None
