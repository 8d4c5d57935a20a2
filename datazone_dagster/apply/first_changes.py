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
from datazone_dagster.dataset.latest import only_latest
from datazone_dagster.delta import guarded
from datazone_dagster.frame.query_session import Unread
from datazone_dagster.model.column_names import KEY, VERSION, Log

MOST_ROWS = 1024


class FirstChanges:
    """The latest change of each key among the first changes of a range.

    Args:
        log: The change log.
        after_batch: Start of the range, exclusive. The range has rows.
        through_batch: End of the range, inclusive.
    """

    def __init__(self, log: ChangeLogSnapshot, after_batch: int, through_batch: int) -> None:
        self._log = log
        self._range = (after_batch, through_batch)
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
            changes, _ = keyed(self._read())
            self._changes = only_latest(changes, changes[KEY], changes[VERSION])
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
        wanted = [name for name in CHUNK_COLUMNS if name not in ON_DEMAND or name in self._columns]
        with (
            guarded(self._log.uri, "Reading changes"),
            self._log.row_groups(*self._range) as row_groups,
        ):
            for row_group in row_groups:
                rows = row_groups.read(row_group, wanted)
                if len(rows):
                    return rows.slice(0, MOST_ROWS)
            return rows
