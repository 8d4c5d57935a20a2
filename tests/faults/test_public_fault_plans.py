"""The public testing module: fault plans in memory, a store that fails, as users script them."""

from __future__ import annotations

import pytest

from datazone_dagster import crash_points
from datazone_dagster.errors import (
    DefinitionError,
    ExpiredIteratorError,
    ServiceUnavailableError,
    ShardNotFoundError,
    SourceError,
    StorageError,
    ThrottledError,
    TrimmedDataError,
)
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.shard import TRIM_HORIZON
from datazone_dagster.pipeline import apply_transform, drain_once
from datazone_dagster.testing import (
    Fault,
    FaultKind,
    FaultPlan,
    ScriptedStream,
    run_transform,
    storage_fails_at,
)
from tests.faults.orders import SOURCE, event_ids, flow, ids, order


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (FaultKind.THROTTLING, ThrottledError),
        (FaultKind.LIMIT_EXCEEDED, ThrottledError),
        (FaultKind.INTERNAL_ERROR, ServiceUnavailableError),
        (FaultKind.CONNECTION_RESET, ServiceUnavailableError),
        (FaultKind.ANSWER_LOST, ServiceUnavailableError),
        (FaultKind.EXPIRED_ITERATOR, ExpiredIteratorError),
        (FaultKind.TRIMMED, TrimmedDataError),
        (FaultKind.NOT_FOUND, ShardNotFoundError),
    ],
)
def test_a_plan_strikes_the_calls_of_a_scripted_stream(
    kind: FaultKind, error: type[SourceError]
) -> None:
    stream = ScriptedStream(
        shards=2, faults=FaultPlan([Fault("GetShardIterator", kind, shard=1, first=2)])
    )
    first, second = stream.shard_ids()

    def ask(shard_id: str) -> str:
        return stream.shard_iterator(stream.stream_arn, shard_id, TRIM_HORIZON)

    assert ask(second)
    assert ask(first)
    with pytest.raises(error, match=kind.value):
        ask(second)
    assert ask(second)


def test_a_plan_that_only_a_server_can_carry_out_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"slow.*LocalDynamoDB"):
        ScriptedStream(faults=FaultPlan([Fault("GetRecords", FaultKind.SLOW)]))


def write_and_drain(stream: ScriptedStream, layout: Layout, number: int) -> None:
    for _ in range(3):
        stream.put(order(number % 5, "paid", 100 + number))
        stream.put(order(number % 5, "placed", 100 + number))
        drain_once(SOURCE, stream, layout)


def test_a_transform_under_a_plan_and_a_failing_store(layout: Layout) -> None:
    plan = FaultPlan(
        [
            Fault("GetRecords", FaultKind.THROTTLING, every=3, times=None),
            Fault("GetShardIterator", FaultKind.NO_ANSWER, first=2, every=4, times=3),
        ]
    )
    stream = ScriptedStream(shards=2, page_records=2, faults=plan)
    for number in range(12):
        stream.put(order(number % 5, "placed", number))
        if number % 4 == 3:
            stream.split()
        point = crash_points.AFTER_READ if number % 2 else crash_points.AFTER_CHANGE_LOG_COMMIT
        with storage_fails_at(point), pytest.raises(StorageError, match="Scripted"):
            write_and_drain(stream, layout, number)
        apply_transform(flow, layout)
    stream.faults = None
    while not drain_once(SOURCE, stream, layout).caught_up:
        pass
    apply_transform(flow, layout)
    assert event_ids(layout) == ids(stream.changes)


def test_a_stream_that_stays_unreadable_ends_a_run_of_a_transform(layout: Layout) -> None:
    stream = ScriptedStream(
        faults=FaultPlan([Fault("GetRecords", FaultKind.INTERNAL_ERROR, times=None)])
    )
    stream.put(order(1, "placed", 1))
    with pytest.raises(SourceError, match="InternalServerError in GetRecords"):
        run_transform(flow, stream, layout.uri)
