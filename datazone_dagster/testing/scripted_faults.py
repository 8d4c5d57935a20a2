"""A fault plan on a scripted stream: the same plan as for the local DynamoDB, without a server."""

from __future__ import annotations

from collections.abc import Callable

from datazone_dagster.errors import (
    DefinitionError,
    ExpiredIteratorError,
    ServiceUnavailableError,
    ShardNotFoundError,
    SourceError,
    ThrottledError,
    TrimmedDataError,
)
from datazone_dagster.local.fault_injection import CalledShard, FaultInjector
from datazone_dagster.local.faults import CONNECTION_KINDS, ERROR_KINDS, FaultKind, FaultPlan

FaultFunction = Callable[[str, str, int], SourceError | None]
"""Called before each operation with its name, shard id and how often it was called."""

_ERRORS: dict[FaultKind, type[SourceError]] = {
    FaultKind.THROTTLING: ThrottledError,
    FaultKind.LIMIT_EXCEEDED: ThrottledError,
    FaultKind.THROUGHPUT_EXCEEDED: ThrottledError,
    FaultKind.EXPIRED_ITERATOR: ExpiredIteratorError,
    FaultKind.TRIMMED: TrimmedDataError,
    FaultKind.NOT_FOUND: ShardNotFoundError,
}


def faults_of_plan(plan: FaultPlan, shards: Callable[[], list[str]]) -> FaultFunction:
    """What a plan does to the calls of a stream: the errors that a client has after its retries.

    Args:
        plan: Error answers and faults of the connection.
        shards: Tells the shards of the stream in the order of their creation.

    Raises:
        DefinitionError: The plan has a kind that only a server can do: changed pages and
            listings, slow answers.
    """
    beyond = [
        fault.kind.value
        for fault in plan.faults
        if fault.kind not in ERROR_KINDS | (CONNECTION_KINDS - {FaultKind.SLOW})
    ]
    if beyond:
        raise DefinitionError(
            f"A ScriptedStream can't do {', '.join(beyond)}.",
            hint="Give this plan to datazone_dagster.local.LocalDynamoDB, or use the methods of "
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
        return error(f"Scripted: {struck.kind.value} in {operation} {shard_id}.")

    return fault
