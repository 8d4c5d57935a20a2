"""What the facts about a Kinesis source mean: a finding for each, with its cure. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from datazone_dagster.model.finding import Finding, Outcome
from datazone_dagster.model.source_facts import KinesisFacts

KINESIS_BREAKS = {
    "dynamodb:DescribeTable": "nothing works: the table is not found",
    "dynamodb:DescribeKinesisStreamingDestination": "no change is drained: whether the table sends "
    "its changes is unknown",
    "kinesis:DescribeStreamSummary": "no change is drained: the stream is not found",
    "kinesis:ListShards": "no change is drained: the shards are unknown",
    "kinesis:GetShardIterator": "no change is drained: no shard can be begun",
    "kinesis:GetRecords": "no change is drained",
    "dynamodb:Scan": "no snapshot is taken: items that do not change are not in the datasets",
}
"""IAM actions that a Kinesis source needs, and what is broken without each."""

_FLOWING = ("ACTIVE", "ENABLING", "UPDATING")


def kinesis_findings(facts: KinesisFacts) -> Iterator[Finding]:
    """Yield the findings about a Kinesis source."""
    name = facts.source
    for action in facts.asked:
        error = facts.failures.get(action)
        if error is None:
            yield Finding(name, action, "ok", "Allowed, and it answers.")
        else:
            what = f"{error.what} So {KINESIS_BREAKS[action]}."
            yield Finding(name, action, "fail", what, error.hint)
    wanted = [one for one in KINESIS_BREAKS if facts.reads_items or one != "dynamodb:Scan"]
    missing = [one for one in wanted if one not in facts.asked]
    if missing and facts.failures:
        what = f"Not tried, because of a failure above: {', '.join(missing)}."
        yield Finding(name, "not_tried", "warn", what, "Repair that, and run doctor again.")
    if "dynamodb:DescribeKinesisStreamingDestination" not in facts.failures:
        yield _destination(facts)
    if facts.retention_hours is not None:
        what = f"The stream {facts.stream_name} keeps changes for {facts.retention_hours} hours."
        hint = "Raise it if a drain may stand still for longer: a year is possible."
        outcome: Outcome = "ok" if facts.retention_hours > _SHORTEST_HOURS else "warn"
        yield Finding(name, "retention", outcome, what, "" if outcome == "ok" else hint)


_SHORTEST_HOURS = 24


def _destination(facts: KinesisFacts) -> Finding:
    name, stream = facts.source, facts.stream_name
    if facts.status not in _FLOWING:
        state = f"is {facts.status}" if facts.status else "never was set up"
        return Finding(
            name,
            "destination",
            "fail",
            f"The table does not send its changes to {stream}: the destination {state}. "
            "Changes made meanwhile are recorded nowhere.",
            "aws dynamodb enable-kinesis-streaming-destination, with "
            "ApproximateCreationDateTimePrecision=MICROSECOND; then a resync.",
        )
    if facts.is_coarse:
        return Finding(
            name,
            "destination",
            "warn",
            "The times of changes have milliseconds only: of two changes of one item in a "
            "millisecond the wrong one may win.",
            "aws dynamodb update-kinesis-streaming-destination, with "
            "ApproximateCreationDateTimePrecision=MICROSECOND.",
        )
    what = f"The table sends its changes to {stream}, with times in microseconds."
    return Finding(name, "destination", "ok", what)
