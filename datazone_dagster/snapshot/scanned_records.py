"""Items of a table as records of the change log: older than every change of their epoch."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.api.mask import mask_steps
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.items.keys import canonical_key
from datazone_dagster.items.masking import Masks
from datazone_dagster.model.record import ChangeRecords, MalformedRecord, Texts
from datazone_dagster.model.snapshot_state import (
    ABSENT,
    ABSENT_BY,
    SCAN_SHARD_ID,
    SNAPSHOT_EVENT,
)
from datazone_dagster.model.table_scan import ScannedItem, ScanPage
from datazone_dagster.model.version import SEQUENCE_DIGITS

_EVENT_ID_BYTES = 16
_VIEW_TYPE = "NEW_IMAGE"


def hides_keys(source: DynamoDBSource, key_names: Collection[str]) -> bool:
    """Return whether a key attribute is masked: then keys are stored nowhere as they are."""
    return any(next(iter(mask_steps(path))) in key_names for path, _ in source.masked)


class ScannedRecords:
    """Makes the records of one snapshot.

    Args:
        source: Source of the table.
        epoch: Epoch of the snapshot.
        table_arn: ARN of the table; None if it has none.
    """

    def __init__(self, source: DynamoDBSource, epoch: int, table_arn: str | None) -> None:
        self._masks = Masks.of(source)
        self._epoch = epoch
        self._region = (table_arn or "").split(":")[3] if table_arn else source.region or ""

    def of_page(self, page: ScanPage) -> Iterator[ShardRecords]:
        """Yield what a page shows: its items, and the deletes of an incremental export."""
        if page.items:
            yield self.present(page.items, page.at, page.order)
        if page.absent:
            yield self.deleted(page.absent, page.at, page.order)

    def present(self, items: Sequence[ScannedItem], at: datetime, order: int = 0) -> ShardRecords:
        """Return items that were read at a time by the clock of the service.

        Args:
            items: The items.
            at: The time.
            order: Rank among the rows of the snapshot with the same key: the highest one counts.
        """
        records = self._records([item.keys for item in items], SNAPSHOT_EVENT, at, order)
        records.new_image = Texts.of(item.image.encode() for item in items)
        records.size_bytes = array("q", [item.size_bytes for item in items])
        return self._masked(records, order)

    def deleted(self, keys: Sequence[str], at: datetime, order: int = 0) -> ShardRecords:
        """Return deletes that an export shows; the keys are not masked yet."""
        records = self._records(keys, "REMOVE", at, order)
        records.user_type = [ABSENT_BY] * len(keys)
        records.user_principal = [ABSENT] * len(keys)
        return self._masked(records, order)

    def absent(self, keys: Sequence[str], at: datetime) -> ShardRecords:
        """Return deletes of keys that the table did not have at a time; the keys are masked."""
        records = self._records(keys, "REMOVE", at)
        records.user_type = [ABSENT_BY] * len(keys)
        records.user_principal = [ABSENT] * len(keys)
        return self._shard(records, [])

    def _records(
        self, keys: Sequence[str], event_name: str, at: datetime, order: int = 0
    ) -> ChangeRecords:
        count = len(keys)
        records = ChangeRecords()
        records.event_id = [""] * count
        records.event_name = [event_name] * count
        records.sequence_digits = [f"{order:0{SEQUENCE_DIGITS}d}"] * count
        records.created_at = array("q", [int(at.timestamp())] * count)
        records.keys = Texts.of(text.encode() for text in keys)
        records.new_image = records.old_image = Texts.of([None] * count)
        records.size_bytes = array("q", [0] * count)
        records.region = [self._region] * count
        records.view_type = [_VIEW_TYPE] * count
        records.user_type = [None] * count
        records.user_principal = [None] * count
        records.positions = None
        return records

    def _masked(self, records: ChangeRecords, order: int) -> ShardRecords:
        if self._masks is None:
            return self._shard(records, [], order)
        return self._shard(*self._masks.records(records), order)

    def _shard(
        self, records: ChangeRecords, refused: Sequence[MalformedRecord], order: int = 0
    ) -> ShardRecords:
        # Ids come after the masks: a hash of a masked key would give it away.
        records.event_id = [
            self._event_id(keys.decode(), name, order)
            for keys, name in zip(
                map(bytes, filter(None, records.keys)), records.event_name, strict=True
            )
        ]
        return ShardRecords("", SCAN_SHARD_ID, None, records, refused)

    def _event_id(self, keys: str, event_name: str, order: int) -> str:
        """Return the id of a record: the same for the same epoch, rank, key and kind of record."""
        try:
            key = canonical_key(keys)
        except ValueError:
            key = keys
        epoch = f"{self._epoch}.{order}" if order else f"{self._epoch}"
        text = f"{epoch}:{event_name}:{key}"
        return hashlib.blake2b(text.encode(), digest_size=_EVENT_ID_BYTES).hexdigest()
