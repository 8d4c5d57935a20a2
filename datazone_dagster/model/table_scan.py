"""Reading a table itself, beside its stream: nouns and protocol of scans and single items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class TableDescription:
    """A table, as DescribeTable shows it.

    Args:
        table_name: Name or ARN by which the table is read.
        table_arn: ARN of the table; None if the service returns none.
        table_id: Id of the table, which a re-created table does not keep; None if the service
            returns none.
        key_names: Names of the key attributes, the partition key first.
        item_count: Number of items. The service counts about every six hours.
        size_bytes: Size of all items in bytes, as the service counts; as old as `item_count`.
        read_units_per_second: Read units per second that the table serves now: provisioned, else
            of its warm throughput; None if the service reports neither.
        max_read_units: Limit of an on-demand table (`MaxReadRequestUnits`), per second; None
            without one.
        served_at: Time of the response by the clock of the service; None if it does not say.
    """

    table_name: str
    table_arn: str | None
    table_id: str | None
    key_names: tuple[str, ...]
    item_count: int
    size_bytes: int
    read_units_per_second: float | None
    max_read_units: float | None
    served_at: datetime | None = None


class ScannedItem(NamedTuple):
    """One item, as raw DynamoDB JSON.

    Args:
        keys: Key attributes, `{"id":{"S":"a"}}`, the partition key first.
        image: The item as it arrived, key attributes included.
        size_bytes: Length of `image` in UTF-8, in bytes.
    """

    keys: str
    image: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ScanPage:
    """One page of a segment: at most 1 MB of items, possibly none.

    Args:
        items: Items of the page, in the order of the service.
        next_key: `LastEvaluatedKey` as JSON, the start key of the next page; None at the end of
            the segment.
        read_units: Read units that the page used. Derived from the size of the items where the
            service does not report it.
        at: Time of the page by the service's Date header: UTC, cut to the second.
        absent: Keys of deleted items, as raw DynamoDB JSON; only an incremental export has any.
        order: Rank of the page's items among those of the same key in other pages.
    """

    items: Sequence[ScannedItem]
    next_key: str | None
    read_units: float
    at: datetime
    absent: Sequence[str] = ()
    order: int = 0


class TableClient(Protocol):
    """Reads the items of one DynamoDB table. Safe to call from several threads.

    Every method raises `SourceError` subclasses only. Throttling and 5xx answers are retried
    inside; what is still throttled then raises `ThrottledError`.
    """

    def describe_table(self) -> TableDescription:
        """Return the table as it is now.

        Raises:
            TableNotFoundError: The table does not exist.
        """
        ...

    def scan_page(
        self, segment: int, segments: int, start_key: str | None, *, consistent: bool
    ) -> ScanPage:
        """Return the next page of a segment.

        Args:
            segment: Number of the segment, from 0.
            segments: Number of segments, 1 to 1,000,000; the same for all pages of a scan.
            start_key: `next_key` of the page before; None begins the segment.
            consistent: Whether the page shows every write that succeeded before. An eventually
                consistent page costs half and may show older states.

        Raises:
            AccessDeniedError: The IAM action dynamodb:Scan is missing.
            TableNotFoundError: The table does not exist.
            ThrottledError: The page is still throttled after all attempts.
        """
        ...

    def get_items(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the images of the items that exist, by their key as given; consistent reads.

        An absent key is proven absent: keys that the service left unprocessed are asked again.

        Args:
            keys: Key attributes as DynamoDB JSON, each with all key attributes of the table.

        Raises:
            AccessDeniedError: The IAM action dynamodb:BatchGetItem is missing.
            TableNotFoundError: The table does not exist.
            ThrottledError: Keys are still unprocessed after all attempts.
        """
        ...
