"""A table at one version, which moves with the commits that are made through it.

It is read from the state that the process keeps. A handle of delta-rs is opened only where delta-rs
has to write or to compute, at exactly that version.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

import pyarrow as pa
from deltalake import DeltaTable

from datazone_dagster.delta import CHECKPOINT_EVERY, create_table, guarded
from datazone_dagster.delta.live_file import new_files
from datazone_dagster.delta.log_files import entry_actions, entry_path
from datazone_dagster.delta.log_upkeep import checkpoint_due, clean_log, make_checkpoint
from datazone_dagster.delta.table_state import KeptTable, kept_table
from datazone_dagster.delta.transaction_log import Anchor, Snapshot, read_snapshot
from datazone_dagster.errors import ConcurrentWriterError, UnrecognisedTableError


class Table:
    """A table at the version `at`.

    Args:
        kept: State of the table that the process keeps.
        at: Version of the table, as a snapshot.
    """

    def __init__(self, kept: KeptTable, at: Snapshot) -> None:
        self.kept = kept
        self.at = at

    @property
    def uri(self) -> str:
        """Location of the table, as given."""
        return self.kept.uri

    @property
    def schema(self) -> pa.Schema:
        """The schema in the Arrow types that we write."""
        return self.at.schema

    @property
    def partition_columns(self) -> tuple[str, ...]:
        """The partition columns, in the order of the table."""
        return self.at.partition_columns

    @property
    def properties(self) -> Mapping[str, str]:
        """The table properties."""
        return self.at.configuration

    def transaction(self, app_id: str) -> int:
        """Return the version last committed for an application id; 0 if none was."""
        return self.at.transaction(app_id)

    def move_to(self, after: Snapshot) -> None:
        """Move to the version that a commit of ours has made; nothing is read."""
        self.at = self.kept.took(after)

    def refresh(self) -> None:
        """Move to the newest version.

        Raises:
            ConcurrentWriterError: The table is gone.
            StorageError: The table can't be read.
        """
        newest = self.kept.now()
        if newest is None:
            raise ConcurrentWriterError(
                f"The table at {self.uri} was removed meanwhile.",
                safe="Nothing of this attempt was written.",
            )
        self.at = newest

    def at_version(self, version: int) -> Table:
        """Return the table at another version.

        Raises:
            DeltaError: The log has no such version, or can't be read.
            OSError: The store failed.
            StorageError: The log can't be read.
        """
        handle = self.kept.handle(self.at)
        handle.load_as_version(version)
        found = Table(self.kept, read_snapshot(handle, self.kept.storage_options))
        self.kept.give_back(handle)
        return found

    @contextmanager
    def by_delta_rs(self) -> Iterator[DeltaTable]:
        """Provide a handle of delta-rs at exactly this version; move to where it is afterwards.

        Raises:
            DeltaError: The log can't be read.
            OSError: The store failed.
        """
        handle = self.kept.handle(self.at)
        yield handle
        if handle.version() != self.at.version:
            self.move_to(self._through(handle.version()))
        self.kept.give_back(handle)

    def scan(
        self, columns: Sequence[str] | None = None, where: str | None = None
    ) -> pa.RecordBatchReader:
        """Return the rows as a stream of batches; their strings have several Arrow types.

        The scan is that of delta-rs, which applies deletion vectors.

        Args:
            columns: Names of the columns to read; None: all.
            where: SQL predicate (DataFusion's dialect) that selects the rows.

        Raises:
            DeltaError: The predicate can't be used, or a file can't be read.
            OSError: The store failed.
        """
        names = None if columns is None else list(columns)
        with self.by_delta_rs() as handle:
            return pa.RecordBatchReader.from_stream(handle.scan(columns=names, predicate=where))

    def keep_short(self, retention: timedelta, every: int = CHECKPOINT_EVERY) -> bool:
        """Make a checkpoint if one is due, and delete the entries that nothing needs any more.

        Args:
            retention: Time for which versions can be opened.
            every: Number of entries after which a checkpoint is due.

        Returns:
            Whether a checkpoint was due.

        Raises:
            DeltaError: The log can't be read.
            OSError: The store failed; the table is as it was.
        """
        if not checkpoint_due(self.at, every):
            return False
        self.at = make_checkpoint(self.kept, self.at)
        clean_log(self.at, retention)
        return True

    def _through(self, version: int) -> Snapshot:
        """Return the table at a later version: a commit of delta-rs, perhaps after others."""
        numbers = range(self.at.version + 1, version + 1)
        found = self.at.store.read_all_identified(map(entry_path, numbers))
        entries = [one for one in found if one is not None]
        if len(entries) < len(numbers):
            self.refresh()
            return self.at
        actions = [entry_actions(content) for content, _ in entries]
        self.at.store.sync([*map(entry_path, numbers), *new_files(itertools.chain(*actions))])
        return self.at.after(actions, Anchor(entry_path(version), entries[-1][1]))


def opened(
    uri: str, storage_options: Mapping[str, str], kind: str, *, look: bool = True
) -> Table | None:
    """Open a table of ours as it is now; None if there is none.

    Args:
        uri: Location of the table.
        storage_options: Options of its store.
        kind: Kind that the table must have, see `datazone_dagster.delta.KIND`.
        look: Whether to look for newer versions than this process knows, which costs a request.

    Raises:
        UnrecognisedTableError: We did not create the table, or not for this purpose.
        StorageError: The table exists but can't be read.
    """
    kept = kept_table(uri, storage_options, kind)
    at = kept.now() if look else kept.seen()
    return None if at is None else Table(kept, at)


def opened_as(uri: str, storage_options: Mapping[str, str], kinds: Sequence[str]) -> Table | None:
    """Open a table that is of one of several kinds, as `opened`; its log is read once.

    Raises:
        UnrecognisedTableError: The table is of none of these kinds.
        StorageError: The table exists but can't be read.
    """
    known = [kept_table(uri, storage_options, kind).known() is not None for kind in kinds]
    first, *others = sorted(kinds, key=lambda kind: not known[kinds.index(kind)])
    try:
        return opened(uri, storage_options, first)
    except UnrecognisedTableError:
        if not others:
            raise
        return opened_as(uri, storage_options, others)


def created(
    uri: str,
    storage_options: Mapping[str, str],
    kind: str,
    schema: pa.Schema,
    *,
    partition_by: tuple[str, ...] = (),
    configuration: Mapping[str, str] | None = None,
    description: str | None = None,
) -> Table:
    """Create an empty table, and open it; if another process was faster, open its table.

    Raises:
        StorageError: The table can't be created.
    """
    create_table(
        uri,
        storage_options,
        kind,
        schema,
        partition_by=partition_by,
        configuration=configuration,
        description=description,
    )
    with guarded(uri, "Opening the new table"):
        kept = kept_table(uri, storage_options, kind)
        kept.forget()
        at = kept.now()
        if at is not None:
            at.store.sync([entry_path(0)], new_table=True)
    if at is None:
        raise ConcurrentWriterError(
            f"The table at {uri} was removed right after it was created.",
            safe="Nothing was written to it.",
        )
    return Table(kept, at)
