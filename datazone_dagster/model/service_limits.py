"""Limits of DynamoDB and its streams that the stages, the emulator and the cost model go by.

Sources: the DynamoDB Streams API reference (GetRecords, GetShardIterator, DescribeStream), the
page "Change data capture for DynamoDB Streams" of the developer guide, and the Kinesis Data Streams
API reference (GetRecords, GetShardIterator).
"""

from __future__ import annotations

from datetime import timedelta

RETENTION = timedelta(hours=24)
"""Time that the service keeps a record. It may trim the record at any moment after."""

ITERATOR_LIFETIME_SECONDS = 15 * 60
"""Time after which a shard iterator expires."""

PAGE_RECORDS = 1_000
PAGE_BYTES = 1_000_000
"""Most records and bytes in one GetRecords answer."""

KINESIS_ITERATOR_LIFETIME_SECONDS = 5 * 60
"""Time after which a shard iterator of Kinesis expires."""

KINESIS_PAGE_RECORDS = 10_000
KINESIS_PAGE_BYTES = 10_000_000
"""Most records, and bytes of their data, in one GetRecords answer of Kinesis."""

KINESIS_SHARD_READS = 5
KINESIS_SHARD_BYTES = 2_000_000
"""Most GetRecords calls, and bytes of data, in a second of one Kinesis shard, of all readers."""

SHARDS_PER_PAGE = 100
"""Most shards in one DescribeStream answer."""

NESTING_LEVELS = 32
"""Most levels of maps and lists in an item."""

BATCH_KEYS = 100
"""Most keys in one BatchGetItem request."""

READ_UNIT_BYTES = 4 * 1024
"""Bytes that one read unit covers; an eventually consistent read needs half a unit."""
