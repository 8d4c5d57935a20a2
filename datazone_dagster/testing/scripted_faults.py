"""Fault plans for a scripted stream: the plans of the local DynamoDB, without a server."""

from __future__ import annotations

from collections.abc import Callable

from datazone_dagster.errors import (
    DefinitionError,
    ExpiredIteratorError,
    ServiceUnavailableError,
    ShardNotFoundError,
    SourceError,
    TableNotFoundError,
    ThrottledError,
    TrimmedDataError,
)
from datazone_dagster.local.fault_injection import CalledShard, FaultInjector
from datazone_dagster.local.faults import CONNECTION_KINDS, ERROR_KINDS, FaultKind, FaultPlan

FaultFunction = Callable[[str, str, int], SourceError | None]
"""Function of an operation's name, shard id and call count; returns the error to raise."""

_ERRORS: dict[FaultKind, type[SourceError]] = {
    FaultKind.THROTTLING: ThrottledError,
    FaultKind.LIMIT_EXCEEDED: ThrottledError,
    FaultKind.THROUGHPUT_EXCEEDED: ThrottledError,
    FaultKind.EXPIRED_ITERATOR: ExpiredIteratorError,
    FaultKind.TRIMMED: TrimmedDataError,
    FaultKind.NOT_FOUND: ShardNotFoundError,
}


def faults_of_plan(plan: FaultPlan, shards: Callable[[], list[str]]) -> FaultFunction:
    """Return the function that applies a plan, with the errors of a client after its retries.

    Args:
        plan: Plan of error answers and faults of the connection.
        shards: Function that returns the stream's shard ids in creation order.

    Raises:
        DefinitionError: The plan has a kind that only a server supports: changed pages and
            listings, slow answers.
    """
    unsupported = [
        fault.kind.value
        for fault in plan.faults
        if fault.kind not in ERROR_KINDS | (CONNECTION_KINDS - {FaultKind.SLOW})
    ]
    if unsupported:
        raise DefinitionError(
            f"A ScriptedStream does not support {', '.join(unsupported)}.",
            hint="Use this plan with datazone_dagster.local.LocalDynamoDB, or call the methods of "
            "the stream: hide, empty_page, malformed.",
        )
    injector = FaultInjector()
    injector.set_plan(plan)

    def fault(operation: str, shard_id: str, _count: int) -> SourceError | None:
        known = shards()
        called = CalledShard(shard_id, known.index(shard_id)) if shard_id in known else None
        struck = injector.strike(operation, called, 0.0)
        if struck is None:
            return None
        error = _ERRORS.get(struck.kind, ServiceUnavailableError)
        if error is ShardNotFoundError and operation in ("ListStreams", "DescribeTable"):
            error = TableNotFoundError
        return error(f"Scripted: {struck.kind.value} in {operation} {shard_id}.")

    return fault
