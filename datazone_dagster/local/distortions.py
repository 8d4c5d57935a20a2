"""Faults that change a correct answer: pages of GetRecords, listings of DescribeStream."""

from __future__ import annotations

from msgspec.structs import replace

from datazone_dagster.local.faults import Fault, FaultKind
from datazone_dagster.local.iterators import read, written
from datazone_dagster.local.kinesis.reads import KinesisPage
from datazone_dagster.local.service import Body, Call
from datazone_dagster.local.stream_listing import described_shard
from datazone_dagster.local.stream_reads import RecordsPage


def distorted_page(call: Call, body: Body, page: RecordsPage, fault: Fault) -> RecordsPage:
    """Return a GetRecords page as the fault changes it."""
    if fault.kind is FaultKind.MISSING_NEXT_ITERATOR:
        return replace(page, next_iterator=None)
    if fault.kind is FaultKind.MALFORMED_RECORD:
        records, middle = list(page.records), len(page.records) // 2
        records.insert(middle, fault.payload.encode())
        return replace(page, records=records)
    iterator: str = body["ShardIterator"]
    arn, now = iterator.rsplit("|", 2)[0], call.clock.now()
    position = read(iterator, now)
    if fault.kind is FaultKind.EMPTY_PAGE:
        return replace(
            page, records=[], next_iterator=written(arn, position.moved(position.after, now))
        )
    if page.next_iterator is not None:  # LATE_END changes the last page only
        return page
    table = "kinesis_shards" if isinstance(page, KinesisPage) else "shards"
    row = call.db.execute(
        f"SELECT ending FROM {table} WHERE number = ?",  # noqa: S608 - fixed names
        (position.shard,),
    ).fetchone()
    return replace(page, next_iterator=written(arn, position.moved(row["ending"], now)))


def distorted_listing(call: Call, answer: Body, fault: Fault) -> Body:
    """Return a DescribeStream answer as the fault changes it."""
    description: Body = dict(answer["StreamDescription"])
    shards: list[Body] = description["Shards"]
    if fault.kind is FaultKind.EMPTY_LAST_PAGE:
        if shards:
            description["LastEvaluatedShardId"] = shards[-1]["ShardId"]
    elif fault.kind is FaultKind.KEEP_EXPIRED:
        description["Shards"] = _with_expired(call, description, fault)
    else:
        named = _named_shards(call, description["StreamArn"], fault)
        description["Shards"] = _DISTORTIONS[fault.kind](shards, named)
    return {"StreamDescription": description}


def _named_shards(call: Call, arn: str, fault: Fault) -> set[str]:
    rows = call.db.execute(
        "SELECT shard_id, parent_id FROM shards JOIN streams ON streams.number = stream"
        " WHERE arn = ? ORDER BY shards.number",
        (arn,),
    ).fetchall()
    parents = {row["parent_id"] for row in rows}
    if fault.shard is None:  # any shard that has children
        return {row["shard_id"] for row in rows if row["shard_id"] in parents}
    return {
        row["shard_id"] for index, row in enumerate(rows) if fault.shard in (index, row["shard_id"])
    }


def _without_descendants(shards: list[Body], named: set[str]) -> list[Body]:
    hidden, listed = set(named), []
    for shard in shards:  # creation order: parents come first
        if shard.get("ParentShardId") in hidden:
            hidden.add(shard["ShardId"])
        else:
            listed.append(shard)
    return listed


def _without(shards: list[Body], named: set[str]) -> list[Body]:
    return [shard for shard in shards if shard["ShardId"] not in named]


def _youngest_first(shards: list[Body], _named: set[str]) -> list[Body]:
    return shards[::-1]


def _opened(shards: list[Body], named: set[str]) -> list[Body]:
    opened = []
    for shard in shards:
        numbers = shard["SequenceNumberRange"]
        if shard["ShardId"] in named:
            numbers = {"StartingSequenceNumber": numbers["StartingSequenceNumber"]}
        opened.append({**shard, "SequenceNumberRange": numbers})
    return opened


def _with_expired(call: Call, description: Body, fault: Fault) -> list[Body]:
    rows = call.db.execute(
        "SELECT shards.* FROM shards JOIN streams ON streams.number = stream"
        " WHERE arn = ? ORDER BY shards.number",
        (description["StreamArn"],),
    ).fetchall()
    expired = [
        described_shard(row)
        for index, row in enumerate(rows)
        if row["dropped"] and fault.shard in (None, index, row["shard_id"])
    ]
    return [*expired, *description["Shards"]]


_DISTORTIONS = {
    FaultKind.HIDE_CHILDREN: _without_descendants,
    FaultKind.HIDE_PARENT: _without,
    FaultKind.OPEN_PARENT: _opened,
    FaultKind.CHILDREN_FIRST: _youngest_first,
}
