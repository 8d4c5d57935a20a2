"""Number of records to ask a Kinesis shard for, so that a page is about 1 MB.

A page of Kinesis has up to 10 MB, and many are in memory at a time. Of 1 MB, as a DynamoDB stream
has them, a shard serves two in a second: the bytes that it serves at all.
"""

from __future__ import annotations

import threading

from datazone_dagster.model.service_limits import KINESIS_PAGE_RECORDS

PAGE_BYTES = 1_000_000
"""Bytes of data that a page is meant to have."""

FIRST_RECORDS = 4
"""Records asked of a shard whose records are unknown: 4 MB at most, and many shards at a time."""

GROWTH = 8
"""Most times the records of a page that the next one of the shard is asked for."""

Shard = tuple[str, str]


class PageSizes:
    """Number of records to ask each shard for. Safe to call from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limits: dict[Shard, int] = {}

    def limit(self, shard: Shard | None) -> int:
        """Return the number of records to ask a shard for; None: it is unknown."""
        with self._lock:
            return FIRST_RECORDS if shard is None else self._limits.get(shard, FIRST_RECORDS)

    def was_read(self, shard: Shard | None, records: int, data_bytes: int) -> None:
        """Record the size of a page of a shard."""
        if shard is None or not records:
            return
        by_size = PAGE_BYTES * records // max(1, data_bytes)
        with self._lock:
            most = min(GROWTH * self._limits.get(shard, FIRST_RECORDS), KINESIS_PAGE_RECORDS)
            self._limits[shard] = max(1, min(by_size, most))
