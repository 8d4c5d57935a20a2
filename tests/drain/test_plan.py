"""Shard lineage: shards to read, shards that wait, and gaps."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from datazone_dagster.drain.plan import (
    DrainPlan,
    created_at,
    oldest_unread,
    plan_drain,
    trim_gap,
    vanished_gap,
)
from datazone_dagster.drain.pruning import pruned
from datazone_dagster.drain.set_plan import plan_set
from datazone_dagster.errors import LineageError, SourceError
from datazone_dagster.model.checkpoint import Checkpoint, ShardCheckpoint, ShardState
from datazone_dagster.model.shard import TRIM_HORIZON, Shard, StreamDescription, after
from datazone_dagster.model.shard_set import shard_sets

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
SERVED_AT = NOW - timedelta(minutes=5)
"""The clock of this machine is 5 minutes ahead of the service."""
ARN = "arn:stream/1"
KINESIS = "arn:aws:kinesis:us-west-2:000000000000:stream/orders/2029-12-01T00:00:00.000"


def stream(*shards: Shard, arn: str = ARN) -> StreamDescription:
    return StreamDescription(arn, "NEW_AND_OLD_IMAGES", True, shards, served_at=SERVED_AT)


def plan(
    described: StreamDescription,
    checkpoint: Checkpoint | None = None,
    *,
    start: str = "trim_horizon",
    now: datetime = NOW,
) -> DrainPlan:
    return plan_drain(described, checkpoint or Checkpoint(), start=start, now=now)


def reads(drain: DrainPlan) -> list[str]:
    return [read.shard.shard_id for read in drain.reads]


def finished(checkpoint: Checkpoint, *shard_ids: str) -> Checkpoint:
    rows = [checkpoint.shards[ARN, shard_id] for shard_id in shard_ids]
    return checkpoint.with_shards(*(replace(row, state=ShardState.FINISHED) for row in rows))


def landed(checkpoint: Checkpoint, shard_id: str, number: int, at: datetime = NOW) -> Checkpoint:
    row = checkpoint.shards[ARN, shard_id]
    return checkpoint.with_shards(replace(row, sequence_number=number, event_time=at))


def test_a_child_waits_until_its_parents_end_is_committed() -> None:
    parent, child = Shard("p", None, 1, 50), Shard("c", "p", 60)
    first = plan(stream(parent, child))
    assert reads(first) == ["p"]
    assert first.waiting == 1
    assert reads(plan(stream(parent, child), first.checkpoint)) == ["p"]
    second = plan(stream(parent, child), finished(first.checkpoint, "p"))
    assert reads(second) == ["c"]
    assert second.reads[0].start == TRIM_HORIZON


def test_an_open_parent_holds_its_children_back() -> None:
    drain = plan(stream(Shard("p", None, 1), Shard("c", "p", 60)))
    assert reads(drain) == ["p"]


def test_reading_continues_after_the_last_landed_record() -> None:
    first = plan(stream(Shard("p", None, 1)))
    second = plan(stream(Shard("p", None, 1)), landed(first.checkpoint, "p", 42))
    assert second.reads[0].start == after(42)


def test_a_parent_gone_before_the_first_listing_is_older_than_our_start() -> None:
    drain = plan(stream(Shard("c", "gone", 60)))
    assert reads(drain) == ["c"]
    assert not drain.checkpoint.open_gaps()


def test_a_parent_missing_from_the_first_listing_by_mistake_is_read_after_all() -> None:
    child = Shard("c", "p", 60)
    first = plan(stream(child))
    second = plan(stream(Shard("p", None, 1, 50), child), first.checkpoint)
    assert reads(second) == ["p"]


def test_a_late_parent_is_waited_for_then_its_loss_is_a_gap() -> None:
    root = Shard("r", None, 1)
    child = Shard("c", "late", 60)
    first = plan(stream(root))
    second = plan(stream(root, child), first.checkpoint)
    assert reads(second) == ["r"]
    third = plan(stream(root, child), second.checkpoint, now=NOW + HOUR)
    assert reads(third) == ["r", "c"]
    (gap,) = third.checkpoint.open_gaps()
    assert gap.shard_id == "late"


def test_a_closed_leaf_without_children_is_no_error_and_asked_again() -> None:
    leaf = Shard("p", None, 1, 50)
    first = plan(stream(leaf))
    second = plan(stream(leaf), finished(first.checkpoint, "p"))
    assert second.reads == ()
    third = plan(stream(leaf, Shard("c", "p", 60)), second.checkpoint)
    assert reads(third) == ["c"]


def test_an_unlisted_shard_is_still_read_to_its_end() -> None:
    first = plan(stream(Shard("p", None, 1)))
    second = plan(stream(), landed(first.checkpoint, "p", 42))
    assert reads(second) == ["p"]
    assert not second.reads[0].closed


def test_a_child_that_starts_before_its_parents_end_stops_the_drain() -> None:
    parent, child = Shard("p", None, 1, 50), Shard("c", "p", 50)
    with pytest.raises(LineageError, match=r"c of arn:stream/1 starts at 50"):
        plan(stream(parent, child))
    checkpoint = landed(plan(stream(Shard("p", None, 1))).checkpoint, "p", 70)
    with pytest.raises(LineageError):
        plan(stream(Shard("c", "p", 60)), checkpoint)


def test_latest_skips_existing_records_and_reads_new_ones() -> None:
    first = plan(stream(Shard("p", None, 1, 50), Shard("c", "p", 60)), start="latest")
    (read,) = first.reads
    assert read.shard.shard_id == "c"
    assert read.shard.skip_before == SERVED_AT
    later = plan(
        stream(Shard("c", "p", 60, 90), Shard("d", "c", 100)),
        finished(first.checkpoint, "c"),
        start="latest",
    )
    assert [read.shard.skip_before for read in later.reads] == [None]


def test_latest_without_the_time_of_the_service_is_refused() -> None:
    described = replace(stream(Shard("p", None, 1)), served_at=None)
    assert reads(plan(described)) == ["p"]
    with pytest.raises(SourceError, match=r"no Date header.*trim_horizon"):
        plan(described, start="latest")


def test_a_new_stream_is_read_completely_in_a_new_epoch_with_a_gap() -> None:
    first = plan(stream(Shard("p", None, 1, 50)))
    done = finished(landed(first.checkpoint, "p", 42), "p")
    second = plan(stream(Shard("n", None, 5), arn="arn:stream/2"), done, start="latest")
    assert reads(second) == ["n"]
    assert second.reads[0].shard.skip_before is None
    assert second.checkpoint.epoch == done.epoch + 1
    (gap,) = second.checkpoint.open_gaps()
    assert "arn:stream/2" in gap.reason
    assert gap.since == NOW
    third = plan(stream(Shard("n", None, 5), arn="arn:stream/2"), second.checkpoint)
    assert third.checkpoint.epoch == second.checkpoint.epoch
    assert len(third.checkpoint.open_gaps()) == 1


def test_a_shard_unread_for_a_day_is_a_gap_once() -> None:
    root = Shard("r", None, 1)
    first = plan(stream(root))
    second = plan(stream(root), first.checkpoint, now=NOW + 25 * HOUR)
    assert [gap.shard_id for gap in second.checkpoint.open_gaps()] == ["r"]
    third = plan(stream(root), second.checkpoint, now=NOW + 25 * HOUR)
    assert third.checkpoint.shards[ARN, "r"].gap == second.checkpoint.shards[ARN, "r"].gap


def test_an_idle_shard_read_to_its_latest_position_is_no_gap() -> None:
    root = Shard("r", None, 1)
    first = plan(stream(root)).checkpoint
    idle = first.with_shards(replace(first.shards[ARN, "r"], tip_at=NOW + 20 * HOUR))
    assert not plan(stream(root), idle, now=NOW + 40 * HOUR).checkpoint.open_gaps()


def test_trimmed_means_lost_unless_the_shard_was_idle() -> None:
    row = ShardCheckpoint(ARN, "s", NOW - 48 * HOUR, sequence_number=42)
    assert trim_gap(replace(row, event_time=NOW - HOUR, tip_at=NOW - HOUR), NOW) is not None
    assert trim_gap(replace(row, event_time=NOW - 30 * HOUR, tip_at=NOW - HOUR), NOW) is None
    stale = replace(row, event_time=NOW - 30 * HOUR, tip_at=NOW - 26 * HOUR)
    assert trim_gap(stale, NOW) is not None


def test_shards_are_pruned_only_when_nothing_needs_them() -> None:
    parent, child = Shard("p", None, 1, 50), Shard("c", "p", 60)
    checkpoint = finished(plan(stream(parent, child)).checkpoint, "p")
    later = NOW + 72 * HOUR
    assert pruned(checkpoint, stream(child), now=later) == checkpoint
    checkpoint = finished(checkpoint, "c")
    grandchild = stream(Shard("g", "c", 90))
    assert set(pruned(checkpoint, grandchild, now=later).shards) == {(ARN, "c")}


def test_a_trim_gap_begins_where_the_shard_was_last_known_to_be_read() -> None:
    row = ShardCheckpoint(ARN, "s1", NOW - 90 * HOUR, sequence_number=7)
    gap = trim_gap(replace(row, event_time=NOW - 60 * HOUR, tip_at=NOW - 30 * HOUR), NOW)
    assert gap is not None
    assert (gap.since, gap.missing_seconds) == (NOW - 30 * HOUR, 30 * 3600)
    gap = trim_gap(replace(row, event_time=NOW - 26 * HOUR, tip_at=NOW - 30 * HOUR), NOW)
    assert gap is not None
    assert gap.since == NOW - 26 * HOUR


def test_the_gap_before_a_new_stream_ends_where_its_arn_says_that_it_was_made() -> None:
    label = f"{NOW - HOUR:%Y-%m-%dT%H:%M:%S}.000"
    assert created_at(f"arn:aws:dynamodb:eu-west-1:1:table/t/stream/{label}") == NOW - HOUR
    assert created_at("arn:aws:dynamodb:eu-west-1:1:table/t/stream/0001") is None


def test_unread_changes_are_no_older_than_known_reads() -> None:
    parent = ShardCheckpoint(
        ARN, "p", NOW - 9 * HOUR, state=ShardState.FINISHED, tip_at=NOW - 5 * HOUR
    )
    child = ShardCheckpoint(ARN, "c", NOW - 7 * HOUR, "p")
    other = ShardCheckpoint(ARN, "o", NOW - 9 * HOUR, sequence_number=1, event_time=NOW - 2 * HOUR)
    known = Checkpoint().with_shards(parent, child, other)
    assert oldest_unread(known, {(ARN, "c"), (ARN, "o")}) is None
    assert oldest_unread(known, {(ARN, "c")}) == NOW - 2 * HOUR
    assert oldest_unread(known, set()) == NOW - 5 * HOUR
    grandchild = ShardCheckpoint(ARN, "g", NOW - 7 * HOUR, "c")
    busy = replace(parent, sequence_number=1, event_time=NOW - 4 * HOUR)
    known = known.with_shards(busy, grandchild)
    assert oldest_unread(known, {(ARN, "o")}) == NOW - 4 * HOUR


def test_the_plan_of_a_set_knows_how_old_an_unread_shard_may_be() -> None:
    at = NOW - HOUR
    parent = ShardCheckpoint(ARN, "p", NOW - 30 * HOUR, None, ShardState.FINISHED, 1, at)
    child = ShardCheckpoint(ARN, "c", NOW - 30 * HOUR, "p")
    known = replace(Checkpoint().with_shards(parent, child), stream_arn=ARN)
    (one,) = shard_sets(1)
    assert [read.unread_since for read in plan_set(known, one, NOW).reads] == [at]


@pytest.mark.parametrize("arn", [ARN, KINESIS])
def test_a_child_that_is_listed_after_a_day_is_a_gap_at_once(arn: str) -> None:
    """It is read in the same drain, and Kinesis does not say that records are gone."""
    parent = ShardCheckpoint(
        arn, "p", NOW - 40 * HOUR, None, ShardState.FINISHED, 1, NOW - 30 * HOUR
    )
    listed = replace(stream(Shard("c", "p")), stream_arn=arn)
    found = plan(listed, Checkpoint(stream_arn=arn).with_shards(parent), now=NOW).checkpoint
    (gap,) = found.open_gaps()
    assert (gap.shard_id, gap.since, gap.until) == ("c", NOW - 30 * HOUR, NOW - 24 * HOUR)
    assert found.shards[arn, "c"].tip_at == gap.until


def test_a_child_that_is_listed_later_was_opened_after_its_parents_were_read() -> None:
    def listed(*rows: ShardCheckpoint) -> datetime:
        found = plan(stream(Shard("c", "p+q")), Checkpoint().with_shards(*rows), now=NOW)
        return found.checkpoint.shards[ARN, "c"].unread_from

    first = ShardCheckpoint(ARN, "p", NOW - 9 * HOUR, sequence_number=1, tip_at=NOW - 5 * HOUR)
    second = ShardCheckpoint(ARN, "q", NOW - 9 * HOUR, event_time=NOW - 6 * HOUR)
    assert listed(first, second) == NOW - 5 * HOUR
    assert listed(first) == NOW, "the other parent is not known"
    gone = replace(second, state=ShardState.TRIMMED_ANCESTOR)
    assert listed(first, gone) == NOW, "the other parent is older than our start"
    ahead = replace(first, tip_at=NOW + HOUR)
    assert listed(ahead, second) == NOW


def test_a_shard_that_vanishes_before_it_was_read_is_a_gap_unless_it_was_there_at_the_start() -> (
    None
):
    at_start = ShardCheckpoint(ARN, "c", NOW)
    assert vanished_gap(at_start, NOW) is None
    later = replace(at_start, unread_from=NOW - HOUR)
    assert vanished_gap(later, NOW) is not None


def kinesis(*shards: Shard, **members: Any) -> StreamDescription:
    return StreamDescription(
        KINESIS, "NEW_AND_OLD_IMAGES", True, shards, served_at=SERVED_AT, **members
    )


def done(checkpoint: Checkpoint, *shard_ids: str) -> Checkpoint:
    rows = [checkpoint.shards[KINESIS, shard_id] for shard_id in shard_ids]
    return checkpoint.with_shards(*(replace(row, state=ShardState.FINISHED) for row in rows))


def test_a_merged_shard_waits_for_the_ends_of_both_parents() -> None:
    shards = Shard("p", None, None, 50), Shard("q", None, None, 90), Shard("m", "p+q")
    first = plan(kinesis(*shards))
    assert (reads(first), first.waiting) == (["p", "q"], 1)
    for one, other in (("p", "q"), ("q", "p")):
        half = plan(kinesis(*shards), done(first.checkpoint, one))
        assert (reads(half), half.waiting) == ([other], 1)
    assert reads(plan(kinesis(*shards), done(first.checkpoint, "p", "q"))) == ["m"]


def test_a_parent_of_two_that_is_gone_at_first_is_no_reason_to_wait() -> None:
    first = plan(kinesis(Shard("q", None, None, 90), Shard("m", "p+q")))
    assert reads(first) == ["q"]
    assert reads(plan(kinesis(Shard("m", "p+q")), done(first.checkpoint, "q"))) == ["m"]


def test_the_loss_of_one_parent_of_two_is_a_gap() -> None:
    root = Shard("r", None)
    first = plan(kinesis(root))
    second = plan(kinesis(root, Shard("m", "p+q"), Shard("q", None)), first.checkpoint)
    assert reads(second) == ["r", "q"]
    third = plan(
        kinesis(root, Shard("m", "p+q"), Shard("q", None, None, 9)),
        done(second.checkpoint, "q"),
        now=NOW + HOUR,
    )
    assert reads(third) == ["r", "m"]
    assert [gap.shard_id for gap in third.checkpoint.open_gaps()] == ["p"]


def test_a_parent_of_a_merge_stays_in_the_checkpoint_while_its_child_is_read() -> None:
    shards = Shard("p", None, None, 50), Shard("q", None, None, 90), Shard("m", "p+q")
    first = plan(kinesis(*shards))
    later = pruned(
        done(first.checkpoint, "p", "q"), kinesis(Shard("m", "p+q")), now=NOW + 100 * HOUR
    )
    assert {row.shard_id for row in later.shards.values()} == {"p", "q", "m"}


def test_a_position_in_kinesis_past_its_retention_is_not_used() -> None:
    open_shard = Shard("p", None)
    first = plan(kinesis(open_shard))
    row = replace(first.checkpoint.shards[KINESIS, "p"], sequence_number=42, event_time=NOW)
    for hours, retention, is_past in ((22, 24, False), (23.5, 24, True), (100, 168, False)):
        now = NOW + hours * HOUR
        read_lately = first.checkpoint.with_shards(replace(row, tip_at=now))
        described = kinesis(open_shard, retention=retention * HOUR)
        (read,) = plan(described, read_lately, now=now).reads
        assert read.start == (TRIM_HORIZON if is_past else after(42))


def test_a_shard_of_kinesis_that_was_not_read_for_its_retention_is_a_gap() -> None:
    open_shard = Shard("p", None)
    first = plan(kinesis(open_shard))
    row = replace(
        first.checkpoint.shards[KINESIS, "p"], sequence_number=42, event_time=NOW, tip_at=NOW
    )
    known = first.checkpoint.with_shards(row)
    for hours, gaps in ((47, 0), (49, 1)):
        described = kinesis(open_shard, retention=48 * HOUR)
        found = plan(described, known, now=NOW + hours * HOUR).checkpoint.open_gaps()
        assert len(found) == gaps
    assert found[0].reason == "the shard was not read for 48 hours"
    assert (found[0].after_sequence_number, found[0].since) == (42, NOW)
