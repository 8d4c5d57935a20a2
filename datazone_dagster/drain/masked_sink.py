"""Where the records that a drain reads go: masked, into the batch."""

from __future__ import annotations

from datazone_dagster.changelog.batch_writer import BatchWriter
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.drain.reader import Sink
from datazone_dagster.items.masking import Masks
from datazone_dagster.model.checkpoint import ShardCheckpoint
from datazone_dagster.model.record import ChangeRecords, MalformedRecord


def masked_sink(writer: BatchWriter, masks: Masks | None) -> Sink:
    """Return a sink that masks the records and puts them into the batch."""

    def put(row: ShardCheckpoint, records: ChangeRecords, malformed: list[MalformedRecord]) -> int:
        refused: list[MalformedRecord] = []
        if masks is not None:
            records, refused = masks.records(records)
            malformed = [*map(masks.withheld, malformed), *refused]
        shard = (row.stream_arn, row.shard_id, row.parent_shard_id)
        writer.put(ShardRecords(*shard, records, malformed))
        return len(refused)

    return put
