"""Metadata of a materialization of an asset whose table the IO manager writes."""

from __future__ import annotations

from collections.abc import Iterable

from datazone_dagster.model.report import MaintenanceReport
from datazone_dagster.model.table_written import TableWritten
from datazone_dagster.observe.metadata import Plain
from datazone_dagster.text import shown


def table_metadata(written: TableWritten, mode: str) -> dict[str, Plain]:
    """Return what a run changed in the table of an asset, and the table after it."""
    maintenance = written.maintenance
    found: dict[str, Plain | None] = {
        "dagster/uri": written.uri,
        "dagster/row_count": written.rows,
        "table_version": written.table_version,
        "write_mode": mode,
        "rows_written": written.rows_written,
        "rows_removed": written.rows_removed,
        **(
            {
                "keys_inserted": written.keys_inserted,
                "keys_updated": written.keys_updated,
                "keys_deleted": written.keys_deleted,
            }
            if mode == "merge"
            else {}
        ),
        "files": written.files,
        "bytes": written.size_bytes,
        "columns_missing": _listed(written.columns_missing),
        "columns_untyped": _listed(written.columns_untyped),
        "times_as_utc": _listed(written.times_as_utc),
        "note": " ".join(written.notes) or None,
        "already_written": "An earlier attempt of this step has written the result: this one "
        "added nothing."
        if written.already_written
        else None,
        "maintenance": None if maintenance is None else maintenance.did or None,
        "rows_hidden": _hidden(maintenance),
    }
    return {key: value for key, value in found.items() if value is not None}


def _listed(names: Iterable[str]) -> str | None:
    return ", ".join(shown(name) for name in names) or None


def _hidden(maintenance: MaintenanceReport | None) -> int | None:
    return None if maintenance is None else maintenance.hidden_rows
