"""The items of a `ScriptedStream` as a table to scan: pages, segments, faults, lagging reads."""

from __future__ import annotations

import copy
import json
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from datazone_dagster.items.keys import canonical_key
from datazone_dagster.model.table_scan import ScannedItem, ScanPage, TableDescription
from datazone_dagster.testing import FixedClock, ScriptedStream
from datazone_dagster.testing.scripted_record import table_arn

Fault = Callable[[str, int], None]
"""Called with the operation and its number; raises to fail the call, or does something else."""


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


class ScriptedTable:
    """A `TableClient` on the items of a scripted stream.

    Args:
        stream: Stream whose items are the table's.
        clock: Clock of the service; the stream has the same.
        page_items: Items of a page.
        units_per_second: Read units that the table serves.
    """

    def __init__(
        self,
        stream: ScriptedStream,
        clock: FixedClock,
        *,
        page_items: int = 2,
        units_per_second: float | None = None,
    ) -> None:
        self.stream = stream
        self.clock = clock
        self.page_items = page_items
        self.units_per_second = units_per_second
        self.calls: Counter[str] = Counter()
        self.pages: Counter[tuple[int, str | None]] = Counter()
        self.fault: Fault = lambda operation, number: None
        self.table_id = "table-1"
        self.units_per_item = 1.0
        self.lag = timedelta(0)
        """Age of what an eventually consistent page shows."""
        self._history: list[tuple[datetime, Mapping[Any, Any]]] = []

    def remember(self) -> None:
        """Remember the items as they are now, for pages that lag behind."""
        self._history.append((self.clock(), copy.deepcopy(dict(self.stream.items))))

    def put_unseen(self, item: Mapping[str, Any]) -> None:
        """Write an item that the stream never shows."""
        self.stream.items[self.stream._name_of(item)] = dict(item)

    def delete_unseen(self, key: Mapping[str, Any]) -> None:
        """Delete an item without a record in the stream."""
        self.stream.items.pop(self.stream._name_of(key))

    def describe_table(self) -> TableDescription:
        items = [*self.stream.items.values()]
        return TableDescription(
            "orders",
            table_arn("orders"),
            self.table_id,
            ("id",),
            len(items),
            sum(len(compact(item)) for item in items),
            self.units_per_second,
            None,
        )

    def scan_page(
        self, segment: int, segments: int, start_key: str | None, *, consistent: bool
    ) -> ScanPage:
        self._called("Scan")
        self.pages[segment, start_key] += 1
        items = self.stream.items if consistent else self._items_of_before()
        own = sorted(
            (scanned for scanned in map(_scanned, list(items.values()))),  # others write meanwhile
            key=lambda one: _hash(one.keys),
        )
        own = [one for one in own if _hash(one.keys)[0] % segments == segment]
        if start_key is not None:
            own = [one for one in own if _hash(one.keys) > _hash(start_key)]
        page, rest = own[: self.page_items], own[self.page_items :]
        next_key = page[-1].keys if rest else None
        units = max(0.5, len(page) * self.units_per_item)
        return ScanPage(page, next_key, units, self._now())

    def get_items(self, keys: Sequence[str]) -> dict[str, str]:
        self._called("BatchGetItem")
        images = {
            canonical_key(one.keys): one.image for one in map(_scanned, self.stream.items.values())
        }
        return {text: images[canonical_key(text)] for text in keys if canonical_key(text) in images}

    def _items_of_before(self) -> Mapping[Any, Any]:
        seen_at = self.clock() - self.lag
        return next((items for at, items in reversed(self._history) if at <= seen_at), {})

    def _called(self, operation: str) -> None:
        self.calls[operation] += 1
        self.fault(operation, self.calls[operation])

    def _now(self) -> datetime:
        return self.clock().replace(microsecond=0)


def _scanned(item: Mapping[str, Any]) -> ScannedItem:
    image = compact(item)
    return ScannedItem(compact({"id": item["id"]}), image, len(image))


def _hash(keys: str) -> tuple[int, str]:
    return zlib.crc32(keys.encode()), keys
