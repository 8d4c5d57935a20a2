"""Process that drains a large backlog, and reports its peak memory.

    python -m tests.drain.backlog <kind> <megabytes> <memory budget in MiB> <workers> <folder>

Pages are generated on request: the stream itself stores nothing.
"""

from __future__ import annotations

import base64
import json
import random
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from datazone_dagster.drain import DrainSettings, drain_tick
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Answer
from datazone_dagster.model.record import RecordsPage
from datazone_dagster.model.shard import IteratorStart, Shard, StreamDescription
from datazone_dagster.process.memory import peak_bytes
from datazone_dagster.source.kinesis_wire import parse_kinesis_page
from datazone_dagster.source.wire import parse_page
from datazone_dagster.sources import DynamoDBSource

ARN = "arn:aws:dynamodb:eu-west-1:000000000000:table/orders/stream/2030-01-01T00:00:00.000"
KINESIS_ARN = "arn:aws:kinesis:eu-west-1:000000000000:stream/orders"
SOURCE = DynamoDBSource(table_name="orders", region="eu-west-1")
_TEXT = random.Random(7).randbytes(400_000).hex()  # text that hardly compresses


@dataclass(frozen=True)
class Kind:
    """Sizes of the items and pages; a page of the service has at most 1 MB or 1,000 records."""

    shards: int
    image_bytes: int
    page_records: int


KINDS = {
    "a day of small changes": Kind(shards=40, image_bytes=700, page_records=650),
    "a burst of the largest items": Kind(shards=40, image_bytes=400_000, page_records=2),
    "one key a million times": Kind(shards=1, image_bytes=60, page_records=1000),
    "small changes through Kinesis": Kind(shards=40, image_bytes=200, page_records=1400),
    "large items through Kinesis": Kind(shards=40, image_bytes=400_000, page_records=2),
}
KINESIS = "Kinesis"


class GeneratedStream:
    """Open shards with a backlog of `total_bytes`."""

    def __init__(self, kind: Kind, total_bytes: int) -> None:
        self._kind = kind
        page_bytes = kind.page_records * 2 * kind.image_bytes
        self._pages = max(1, total_bytes // page_bytes // kind.shards)
        self.records = self._pages * kind.shards * kind.page_records

    def stream_arns(self) -> tuple[str, ...]:
        return (ARN,)

    def describe(self, stream_arn: str) -> StreamDescription:
        shards = tuple(Shard(f"shardId-{n:04d}", None, 1) for n in range(self._kind.shards))
        return StreamDescription(stream_arn, "NEW_AND_OLD_IMAGES", enabled=True, shards=shards)

    def shard_iterator(self, stream_arn: str, shard_id: str, start: IteratorStart) -> str:
        last = (start.sequence_number or 0) // self._kind.page_records
        return f"{shard_id}:{last}"

    def get_records(self, shard_iterator: str) -> RecordsPage:
        return self.ask_for_records(shard_iterator)()

    def ask_for_records(self, shard_iterator: str) -> Answer:
        shard_id, page = shard_iterator.split(":")
        at = int(page)
        if at >= self._pages:
            return partial(RecordsPage, [], shard_iterator, 0)
        first = at * self._kind.page_records + 1
        records = ",".join(
            self._record(shard_id, first + n) for n in range(self._kind.page_records)
        )
        body = f'{{"NextShardIterator":"{shard_id}:{at + 1}","Records":[{records}]}}'
        return partial(parse_page, body.encode())

    def _record(self, shard_id: str, number: int) -> str:
        size = self._kind.image_bytes
        start = number * 997 % (len(_TEXT) - size)
        key = f'{{"id":{{"S":"{shard_id}"}}}}'
        image = f'{{"id":{{"S":"{shard_id}"}},"text":{{"S":"{_TEXT[start : start + size]}"}}}}'
        return (
            f'{{"eventID":"{shard_id}{number}","eventName":"MODIFY","awsRegion":"eu-west-1",'
            f'"dynamodb":{{"ApproximateCreationDateTime":1893456000,"Keys":{key},'
            f'"NewImage":{image},"OldImage":{image},"SequenceNumber":"{number}",'
            f'"SizeBytes":{2 * size},"StreamViewType":"NEW_AND_OLD_IMAGES"}}}}'
        )


class GeneratedKinesis(GeneratedStream):
    """The same through a Kinesis stream: in base64, and told from one another by their time."""

    def stream_arns(self) -> tuple[str, ...]:
        return (KINESIS_ARN,)

    def describe(self, stream_arn: str) -> StreamDescription:
        found = super().describe(stream_arn)
        shards = tuple(Shard(one.shard_id, None, 1) for one in found.shards)
        return replace(found, shards=shards, retention=timedelta(days=1))

    def ask_for_records(self, shard_iterator: str) -> Answer:
        shard_id, page = shard_iterator.split(":")
        at, number = int(page), int(shard_id.removeprefix("shardId-"))
        if at >= self._pages:
            body = f'{{"NextShardIterator":"{shard_iterator}","Records":[],"MillisBehindLatest":0}}'
            return partial(parse_kinesis_page, body.encode(), SOURCE.table_name)
        first = at * self._kind.page_records + 1
        records = ",".join(
            self._in_base64(shard_id, first + n, at * 10**6 + n * 100 + number)
            for n in range(self._kind.page_records)
        )
        body = (
            f'{{"NextShardIterator":"{shard_id}:{at + 1}","Records":[{records}],'
            '"MillisBehindLatest":1000}'
        )
        return partial(parse_kinesis_page, body.encode(), SOURCE.table_name)

    def _in_base64(self, shard_id: str, number: int, microseconds: int) -> str:
        text = self._record(shard_id, number).replace(
            '"ApproximateCreationDateTime":1893456000',
            f'"ApproximateCreationDateTime":{1893456000_000000 + microseconds},'
            '"ApproximateCreationDateTimePrecision":"MICROSECOND"',
        )
        change = text.replace("{", '{"tableName":"orders","recordFormat":"application/json",', 1)
        data = base64.b64encode(change.encode()).decode()
        return f'{{"Data":"{data}","PartitionKey":"p","SequenceNumber":"{number}"}}'


def main(kind: str, megabytes: int, budget_mib: int, workers: int, root: Path) -> None:
    generated = GeneratedKinesis if KINESIS in kind else GeneratedStream
    stream = generated(KINDS[kind], megabytes * 10**6)
    settings = DrainSettings(memory_budget=budget_mib << 20, max_workers=workers)
    records = batches = 0
    while True:
        report = drain_tick(SOURCE, stream, Layout(str(root)), settings=settings)
        records += report.records
        batches += report.batches
        if report.caught_up:
            break
    result = {
        "records": records,
        "expected": stream.records,
        "batches": batches,
        "peak_mib": peak_bytes() / (1 << 20),
    }
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
