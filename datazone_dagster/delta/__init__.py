"""Low-level access to our Delta tables: open or create, guarded commits, files and statistics.

Every commit that must happen once goes through `guarded`: delta-rs records application
transactions but does not enforce them, so the rule is ours. A handle is opened, its
transaction version is compared, and the write uses that very handle. A commit from a stale
handle with the same application id fails, and its writer has lost the commit race.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from datazone_dagster.delta.conditional_writes import require_conditional_writes
from datazone_dagster.delta.store_access import delta_rs_options
from datazone_dagster.errors import ConcurrentWriterError, StorageError, UnrecognisedTableError
from datazone_dagster.model.table_file import DataFile
from datazone_dagster.text import shown, without_secrets

Table = DeltaTable
"""Handle of a Delta table at one version, for annotations of those who do not call delta-rs."""

Commit = CommitProperties
"""Properties of a commit next to its rows: see `transaction`."""

TABLE_ERRORS = (DeltaError, OSError)
"""Errors of delta-rs and of the store."""

KIND = "datazone.kind"
"""Table property that marks a table as ours, and names the kind of table it is."""

READ_ROWS = 16384
READ_BYTES = 32 << 20
"""Rows and bytes decoded from Parquet at a time, at most."""

CHECKPOINT_EVERY = 25
"""Commits between two Delta checkpoints: opening a table replays the log since the last one."""


def open_table(uri: str, storage_options: Mapping[str, str], kind: str) -> DeltaTable | None:
    """Open the table at `uri`; None if there is none.

    Raises:
        UnrecognisedTableError: We did not create the table, or not for this purpose.
        StorageError: The table exists but can't be read.
    """
    try:
        table = DeltaTable(uri, storage_options=delta_rs_options(uri, storage_options))
    except TableNotFoundError:
        return None
    except TABLE_ERRORS as error:
        raise StorageError(
            f"The Delta table at {uri} can't be opened: {in_one_line(error)}.",
            safe="Nothing was written.",
            hint=store_hint(error)
            or "Check the store and the storage options; if the table's log is damaged, "
            "restore it from a backup or move the folder away.",
        ) from error
    found = table.metadata().configuration.get(KIND)
    if found != kind:
        raise UnrecognisedTableError(
            f"The Delta table at {uri} is not a {kind} table of datazone_dagster"
            + (f" but its {found} table." if found else "."),
            safe="Nothing was overwritten.",
            hint="Move that table away, or choose another lakehouse uri or dataset id.",
        )
    return table


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
        "delta.checkpointInterval": str(CHECKPOINT_EVERY),
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
        existing = open_table(uri, storage_options, kind)
        if existing is not None:
            return existing
        raise StorageError(
            f"The Delta table at {uri} can't be created: {in_one_line(error)}.",
            safe="Nothing was written.",
            hint=store_hint(error) or "Check that the location exists, is writable and has space.",
        ) from error


def transaction(app_id: str, version: int) -> CommitProperties:
    """Return commit properties that record `version` for `app_id` and disable retries.

    A retry inside delta-rs could rebase the write on a table state that we have not read.
    """
    return transactions({app_id: version})


def transactions(versions: Mapping[str, int]) -> CommitProperties:
    """Return commit properties as `transaction` does, with versions of several application ids."""
    return CommitProperties(
        app_transactions=[Transaction(app_id, version) for app_id, version in versions.items()],
        max_commit_retries=0,
    )


@contextmanager
def guarded(uri: str, doing: str) -> Iterator[None]:
    """Convert the errors of one commit into ours.

    Raises:
        ConcurrentWriterError: Another commit came first.
        StorageError: The store failed. Only reading the table again shows whether the commit
            happened; it is never assumed.
    """
    try:
        yield
    except CommitFailedError as error:
        raise ConcurrentWriterError(
            f"{doing} at {uri}: another writer committed first ({in_one_line(error)}).",
            safe="Nothing of this attempt was committed; the other writer's commit is intact.",
            hint="This attempt lost the commit race; the next one continues from the new state.",
        ) from error
    except TABLE_ERRORS as error:
        raise StorageError(
            f"{doing} at {uri} failed: {in_one_line(error)}.",
            safe="The change log and earlier commits are untouched; the next attempt reads "
            "the table again to find out whether this commit happened.",
            hint=store_hint(error) or "Check the store: permissions, free space, reachability.",
        ) from error


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


def store_hint(error: BaseException) -> str | None:
    """Return a hint for errors that first-time users meet and the store explains badly."""
    text = str(error)
    if _MACHINE_ROLE in text:
        return (
            "No credentials for the store were found, and this machine has no role that provides "
            "them. Set them in the environment of the Dagster process (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or the store's equivalents), or as EnvVar in "
            "Lakehouse(storage_options=...)."
        )
    if "Unknown scheme" in text:
        return "A lakehouse is a directory, or a uri that begins with s3://, gs:// or abfss://."
    return None


_MACHINE_ROLE = "http://169.254.169.254"
_SCHEMES = re.compile(r"\. Known schemes: \S*")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_CAUSE = "↳"
_TEXT_MAX = 600


def in_one_line(error: BaseException) -> str:
    """Return the text of a store error and its causes on one line, without stack traces.

    delta-rs puts each cause on a line of its own: "Permission denied" is in the last one.
    User and query of a URL are removed: they may be a password and a signature.
    """
    text = without_secrets(_COLOURS.sub("", _SCHEMES.sub("", str(error)))).strip()
    first, *others = text.splitlines() or [type(error).__name__]
    causes = [line.strip()[1:].strip() for line in others if line.strip().startswith(_CAUSE)]
    return shown(": ".join([first.strip(), *causes]), _TEXT_MAX).rstrip(".")
