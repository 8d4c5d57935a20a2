"""Low-level access to our Delta tables: open or create, guarded commits, files and statistics.

Every commit that must happen once goes through `guarded`: delta-rs records application
transactions but does not enforce them, so the rule is ours. A handle is opened, its
transaction version is compared, and the write uses that very handle. A commit from a stale
handle with the same application id fails, and its writer has lost the commit race.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import TableNotFoundError

from datazone_dagster.delta.conditional_writes import require_conditional_writes
from datazone_dagster.delta.intervals import CHECKPOINT_EVERY as CHECKPOINT_EVERY
from datazone_dagster.delta.intervals import CHECKPOINT_INTERVAL
from datazone_dagster.delta.store_access import delta_rs_options
from datazone_dagster.delta.store_errors import TABLE_ERRORS as TABLE_ERRORS
from datazone_dagster.delta.store_errors import LostRaceError as LostRaceError
from datazone_dagster.delta.store_errors import guarded as guarded
from datazone_dagster.delta.store_errors import in_one_line as in_one_line
from datazone_dagster.delta.store_errors import is_of_store as is_of_store
from datazone_dagster.delta.store_errors import storage_error as storage_error
from datazone_dagster.errors import (
    NewerTableError,
    StorageError,
    StoreUnavailableError,
    UnrecognisedTableError,
)
from datazone_dagster.model.table_file import DataFile

Table = DeltaTable
"""Handle of a Delta table at one version, for annotations of those who do not call delta-rs."""

Commit = CommitProperties
"""Properties of a commit next to its rows: see `transaction`."""

KIND = "datazone.kind"
"""Table property that marks a table as ours, and names the kind of table it is."""

FORMAT = "datazone.format"
"""Table property with the least format of our tables that a process has to know; absent: 1.

A version of the library that writes what earlier ones would misread raises `KNOWN_FORMAT`, and sets
the property in the commit before the first such one.
"""

KNOWN_FORMAT = 1
"""Newest format that this version reads and writes."""

READ_ROWS = 16384
READ_BYTES = 32 << 20
"""Rows and bytes decoded from Parquet at a time, at most."""


def open_table(uri: str, storage_options: Mapping[str, str], kind: str) -> DeltaTable | None:
    """Open the table at `uri`; None if there is none.

    Raises:
        UnrecognisedTableError: We did not create the table, or not for this purpose.
        NewerTableError: A newer version of the library has written it.
        StorageError: The table exists but can't be read.
    """
    try:
        table = DeltaTable(uri, storage_options=delta_rs_options(uri, storage_options))
    except TableNotFoundError:
        return None
    except TABLE_ERRORS as error:
        raise unreadable_error(uri, error) from error
    configuration = table.metadata().configuration
    found = configuration.get(KIND)
    if found != kind:
        raise unrecognised_error(uri, kind, found)
    require_known_format(uri, configuration)
    return table


def require_known_format(uri: str, configuration: Mapping[str, str]) -> None:
    """Check that this version of the library knows what is in a table of ours.

    Raises:
        NewerTableError: It is older than the table.
    """
    found = configuration.get(FORMAT) or "1"
    if found.isdecimal() and int(found) <= KNOWN_FORMAT:
        return
    raise NewerTableError(
        f"The table at {uri} was written by a newer version of datazone-dagster: it has format "
        f"{found}, and this version knows {KNOWN_FORMAT}.",
        safe="Nothing was read or written.",
        hint="Update datazone-dagster in every process: code server, runs and commands. To go back "
        "to this version, restore a backup from before the update.",
    )


def unreadable_error(uri: str, error: BaseException) -> StorageError:
    """Return the error for a table that is there but can't be opened."""
    return storage_error(
        f"The Delta table at {uri} can't be opened",
        error,
        safe="Nothing was written.",
        hint="Check the store and the storage options; if the table's log is damaged, "
        "restore it from a backup or move the folder away.",
    )


def unrecognised_error(uri: str, kind: str, found: str | None) -> UnrecognisedTableError:
    """Return the error for a table of another kind than this one; None: not one of ours."""
    return UnrecognisedTableError(
        f"The Delta table at {uri} is no {kind.removesuffix(' table')} table of datazone_dagster"
        + (f" but its {found.removesuffix(' table')} table." if found else "."),
        safe="Nothing was overwritten.",
        hint="Move that table away, or choose another lakehouse uri or dataset id.",
    )


def create_table(
    uri: str,
    storage_options: Mapping[str, str],
    kind: str,
    schema: pa.Schema,
    *,
    partition_by: tuple[str, ...] = (),
    configuration: Mapping[str, str] | None = None,
    description: str | None = None,
) -> DeltaTable:
    """Create an empty table; if another process was faster, open the table that it created."""
    properties = {
        KIND: kind,
        "delta.checkpointInterval": str(CHECKPOINT_INTERVAL),
        **(configuration or {}),
    }
    try:
        require_conditional_writes(uri, storage_options)
        return DeltaTable.create(
            uri,
            schema,
            mode="error",
            partition_by=list(partition_by) or None,
            configuration=properties,
            description=description,
            storage_options=delta_rs_options(uri, storage_options),
            raise_if_key_not_exists=False,
        )
    except TABLE_ERRORS as error:
        failure = storage_error(
            f"The Delta table at {uri} can't be created",
            error,
            safe="Nothing was written, or an empty table: the next attempt looks.",
            hint="Check that the location exists, is writable and has space.",
        )
        is_down = isinstance(failure, StoreUnavailableError)
        existing = None if is_down else open_table(uri, storage_options, kind)
        if existing is not None:
            return existing
        raise failure from error


def transaction(app_id: str, version: int) -> CommitProperties:
    """Return commit properties that record `version` for `app_id` and disable retries.

    A retry inside delta-rs could rebase the write on a table state that we have not read.
    """
    return transactions({app_id: version})


def transactions(
    versions: Mapping[str, int], *, expires_from: datetime | None = None
) -> CommitProperties:
    """Return commit properties as `transaction` does, with versions of several application ids.

    Args:
        versions: Versions by application id.
        expires_from: Time from which the table property `TRANSACTION_RETENTION` counts; None: the
            transactions stay for good.
    """
    at = None if expires_from is None else int(expires_from.timestamp() * 1000)
    return CommitProperties(
        app_transactions=[Transaction(app_id, version, at) for app_id, version in versions.items()],
        max_commit_retries=0,
    )


def data_files(table: DeltaTable) -> list[DataFile]:
    """Return the live files as listed in the log; no data file is opened."""
    actions = pa.table(cast(Any, table.get_add_actions(flatten=True)))
    return [
        DataFile(
            path=row["path"],
            size_bytes=row["size_bytes"],
            written_at=datetime.fromtimestamp(row["modification_time"] / 1000, timezone.utc),
            num_records=row["num_records"] or 0,
            minimum=_with_prefix(row, "min."),
            maximum=_with_prefix(row, "max."),
            partition=_with_prefix(row, "partition."),
        )
        for row in actions.to_pylist()
    ]


def _with_prefix(row: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {
        name[len(prefix) :]: value
        for name, value in row.items()
        if name.startswith(prefix) and value is not None
    }


def rows_at_a_time(group: pq.RowGroupMetaData) -> int:
    """Return how many rows of a row group to decode at a time, by `READ_ROWS` and `READ_BYTES`."""
    bytes_per_row = int(group.total_byte_size) // max(int(group.num_rows), 1) + 1
    return max(1, min(READ_ROWS, READ_BYTES // bytes_per_row))
