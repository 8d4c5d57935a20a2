"""Changes of a source as they land: a reader of the change log, which the drain does not notice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.api.mask import Masked
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.changelog.log_errors import missing_error
from datazone_dagster.dataset.deletes import TTL_PRINCIPAL
from datazone_dagster.delta import guarded
from datazone_dagster.erase.erased_keys import parse_keys
from datazone_dagster.errors import DefinitionError
from datazone_dagster.items.masking import Masks
from datazone_dagster.items.shown_masks import hide
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.landed_change import LandedChange
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.version import split_version

_CHUNK_BYTES = 8 << 20
_COLUMNS = [
    Log.BATCH,
    Log.SHARD_ID,
    Log.VERSION,
    Log.EVENT_ID,
    Log.EVENT_NAME,
    Log.EVENT_TIME,
    Log.KEYS,
    Log.OLD_IMAGE,
    Log.NEW_IMAGE,
    Log.USER_PRINCIPAL,
    Log.RAW,
    Log.REASON,
]


class ChangeTail:
    """Reads the changes of a source in the order in which they landed; writes nothing.

    It does not read the stream: a shard has two readers at most, and the drain is one. Masks have
    been applied when a change landed; what landed before a mask is hidden here, and says so.

    Args:
        source: The source.
        layout: Locations of the tables.
        since: Time of the first change to read; None: those that land from now on.
        key: Only changes of this item, as `parse_keys` reads it; None: of all items.

    Raises:
        DefinitionError: `key` is no key.
        MaskError: The mask of the source can't be applied to the key.
        StorageError: There is no change log, or it can't be read.
    """

    def __init__(
        self,
        source: DynamoDBSource,
        layout: Layout,
        *,
        since: datetime | None = None,
        key: str | None = None,
    ) -> None:
        self._log = ChangeLog(layout, source)
        self._masked = source.masked
        self._is_wanted = _filter(source, key)
        self._since = since
        log = self._opened()
        self._after_batch = log.head if since is None else _batch_before(log, since)

    def read(self) -> Iterator[LandedChange]:
        """Yield the changes that have landed since the last call, oldest first.

        Raises:
            StorageError: The change log can't be read, or retention has removed unread changes.
        """
        log = self._opened()
        head = log.head
        for chunk in log.chunks(self._after_batch, head, _CHUNK_BYTES, columns=_COLUMNS):
            for rows in chunk.rows.to_batches():
                wanted = self._is_wanted(rows)
                if self._since is not None:
                    recent = pc.greater_equal(rows.column(Log.EVENT_TIME), pa.scalar(self._since))
                    wanted = pc.and_(wanted, pc.fill_null(recent, True))
                for row in rows.filter(wanted).to_pylist():
                    yield _change(row, self._masked)
            self._after_batch = chunk.last_batch
        self._after_batch = head

    def _opened(self) -> ChangeLogSnapshot:
        with guarded(self._log.uri, "Opening a change log"):
            log = self._log.open()
        if log is None:
            raise missing_error(self._log.uri, self._log.name)
        return log


def _batch_before(log: ChangeLogSnapshot, since: datetime) -> int:
    """Return the batch before the first one with a change of this time or later."""
    first = log.head + 1
    far = datetime(9999, 1, 1, tzinfo=timezone.utc)
    for rows in log.rows_of_time(since, far, [Log.BATCH, Log.EVENT_TIME]):
        recent = rows.filter(pc.greater_equal(rows[Log.EVENT_TIME], pa.scalar(since)))
        if len(recent):
            first = min(first, pc.min(recent[Log.BATCH]).as_py())
    return max(first - 1, log.truncated_through)


def _filter(source: DynamoDBSource, key: str | None) -> Callable[[pa.RecordBatch], pa.Array]:
    if key is None:
        return lambda rows: pa.repeat(True, len(rows))
    masks = Masks.of(source)
    try:
        keys = parse_keys([key], None if masks is None else masks.keys)
    except DefinitionError as error:
        raise DefinitionError(error.what, safe="Nothing was read.", hint=error.hint) from error
    return lambda rows: pc.is_valid(keys.in_records(rows))


def _change(row: dict[str, Any], masked: Masked) -> LandedChange:
    keys, old, new = (_json(row[name]) for name in (Log.KEYS, Log.OLD_IMAGE, Log.NEW_IMAGE))
    hidden = [hide(one, masked) for one in (keys, old, new) if one is not None]
    version = row[Log.VERSION]
    sequence_number = 0 if version is None else split_version(version)[1]
    return LandedChange(
        batch=row[Log.BATCH],
        shard_id=row[Log.SHARD_ID],
        event_id=row[Log.EVENT_ID],
        event_name=row[Log.EVENT_NAME],
        event_time=row[Log.EVENT_TIME],
        sequence_number=str(sequence_number) if sequence_number else None,
        by_ttl=row[Log.USER_PRINCIPAL] == TTL_PRINCIPAL,
        keys=keys,
        old=old,
        new=new,
        malformed=row[Log.REASON],
        hidden=any(hidden),
    )


def _json(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
