"""The first changes of a backlog, for a look at what the function makes of them.

What a function returns says which changes and images it needs. A few changes show that, so that
the first chunk of a run is read like all others.
"""

from __future__ import annotations

import pyarrow as pa

from datazone_dagster.apply.bad_records import keyed
from datazone_dagster.apply.chunk import CHANGES_SCHEMA
from datazone_dagster.apply.full_scan import ON_DEMAND
from datazone_dagster.changelog.chunks import CHUNK_COLUMNS
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.changelog.schema import SCHEMA
from datazone_dagster.dataset.latest import only_latest
from datazone_dagster.delta import guarded
from datazone_dagster.frame.query_session import Unread
from datazone_dagster.model.column_names import KEY, VERSION, Log

MOST_ROWS = 1024
"""Rows that are looked at in one go; a look ends with enough keys after each of these."""

MOST_ROW_GROUPS = 16
MOST_BYTES = 32 << 20
"""A look ends with the row group that reaches one of these, however few keys it has found."""


class FirstChanges:
    """The latest change of each key among the first changes of a range.

    Args:
        log: The change log.
        after_batch: Start of the range, exclusive. The range has rows.
        through_batch: End of the range, inclusive.
        enough_keys: The changes go on until so many keys are among them.
    """

    def __init__(
        self, log: ChangeLogSnapshot, after_batch: int, through_batch: int, enough_keys: int = 1
    ) -> None:
        self._log = log
        self._range = (after_batch, through_batch)
        self._enough_keys = enough_keys
        self._columns: frozenset[str] = frozenset()
        self._changes: pa.Table | None = None

    def unread(self) -> Unread:
        """Return the changes as a table that is read on first use."""
        return Unread(CHANGES_SCHEMA, self.changes_with)

    def changes_with(self, columns: frozenset[str]) -> pa.Table:
        """Return the changes, with at least these columns of `CHANGES_SCHEMA`.

        Raises:
            StorageError: The change log can't be read.
        """
        if self._changes is None or not columns <= self._columns:
            self._columns |= columns
            self._changes = self._read()
        return self._changes

    @property
    def images_read(self) -> frozenset[str]:
        """Columns of images that were requested."""
        return self._columns & {Log.OLD_IMAGE, Log.NEW_IMAGE}

    @property
    def batches(self) -> tuple[int, int]:
        """First and last batch of the range."""
        return self._range[0] + 1, self._range[1]

    @property
    def location(self) -> str:
        """Range of batches in the change log, for errors."""
        first, last = self.batches
        return f"batches {first} to {last}"

    def _read(self) -> pa.Table:
        """Read the same changes each time, whichever columns are wanted."""
        wanted = [name for name in CHUNK_COLUMNS if name not in ON_DEMAND or name in self._columns]
        latest, _ = keyed(SCHEMA.empty_table().select(wanted))
        decoded_bytes = groups = 0
        with (
            guarded(self._log.uri, "Reading changes"),
            self._log.row_groups(*self._range) as row_groups,
        ):
            for row_group in row_groups:
                rows = row_groups.read(row_group, wanted)
                for start in range(0, len(rows), MOST_ROWS):
                    more, _ = keyed(rows.slice(start, MOST_ROWS))
                    both = pa.concat_tables([latest, more])
                    latest = only_latest(both, both[KEY], both[VERSION])
                    if len(latest) >= self._enough_keys:
                        return latest
                decoded_bytes += row_group.decoded_bytes
                groups += bool(len(rows))
                if decoded_bytes >= MOST_BYTES or groups >= MOST_ROW_GROUPS:
                    break
        return latest
