"""Faults by script: which call of the local DynamoDB fails, and how.

A plan is data: it travels as JSON to the server (`AdminClient.set_faults`), so it works
across processes, and the same calls give the same faults every time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from datazone_dagster.errors import DefinitionError


class FaultKind(str, Enum):
    """What happens to a call."""

    # Error answers, before any work is done.
    THROTTLING = "ThrottlingException"
    LIMIT_EXCEEDED = "LimitExceededException"
    THROUGHPUT_EXCEEDED = "ProvisionedThroughputExceededException"
    INTERNAL_ERROR = "InternalServerError"
    UNAVAILABLE = "ServiceUnavailable"
    EXPIRED_ITERATOR = "ExpiredIteratorException"
    TRIMMED = "TrimmedDataAccessException"
    NOT_FOUND = "ResourceNotFoundException"
    # The connection.
    CONNECTION_RESET = "connection_reset"
    """Reset before any work is done."""
    ANSWER_LOST = "answer_lost"
    """The work is done, then the connection is reset."""
    NO_ANSWER = "no_answer"
    """The work is done, the answer never comes: the client runs into its timeout."""
    SLOW = "slow"
    """The answer comes `delay_seconds` late."""
    # Pages of GetRecords.
    EMPTY_PAGE = "empty_page"
    """No records, and an iterator at the same place."""
    MALFORMED_RECORD = "malformed_record"
    """`payload` is added in the middle of the page; every true record stays."""
    MISSING_NEXT_ITERATOR = "missing_next_iterator"
    """The records come without a NextShardIterator, whatever follows."""
    LATE_END = "late_end"
    """The last page of a closed shard still has an iterator; the end is an empty page."""
    # Listings of DescribeStream. `shard` names the shard that is shown wrongly.
    HIDE_CHILDREN = "hide_children"
    """A closed shard looks like a leaf: its descendants are not listed yet."""
    HIDE_PARENT = "hide_parent"
    """The shard is not listed, although its children are."""
    OPEN_PARENT = "open_parent"
    """The shard has children but no EndingSequenceNumber yet."""
    CHILDREN_FIRST = "children_first"
    """The shards come youngest first, so children are listed before their parents."""
    KEEP_EXPIRED = "keep_expired"
    """A shard that is gone after 24 hours is still listed."""
    EMPTY_LAST_PAGE = "empty_last_page"
    """The last page is followed by an empty one."""


ERROR_KINDS = frozenset(list(FaultKind)[:8])
CONNECTION_KINDS = frozenset(list(FaultKind)[8:12])
PAGE_KINDS = frozenset(
    {
        FaultKind.EMPTY_PAGE,
        FaultKind.MALFORMED_RECORD,
        FaultKind.MISSING_NEXT_ITERATOR,
        FaultKind.LATE_END,
    }
)
LISTING_KINDS = frozenset(list(FaultKind)[-6:])
ANY_OPERATION = "*"
_MALFORMED = '{"eventID":"malformed-record","eventName":"MODIFY","dynamodb":"not a record"}'


@dataclass(frozen=True, slots=True)
class Fault:
    """One scripted fault.

    The calls that match `operation` and `shard` are counted from 1 when the plan is set. The
    fault strikes at call `first`, then at every `every`-th call, `times` times in all.

    Args:
        operation: An operation such as `GetRecords`, or `*`.
        kind: What happens.
        shard: A shard id, its index in the creation order of its stream (from 0), or None
            for any. For listing kinds it is the shard shown wrongly, and
            every DescribeStream call counts.
        first: The first call that is struck, from 1.
        times: How often it strikes; None: for ever.
        every: The distance between struck calls, in calls.
        delay_seconds: For `slow` the delay, for `no_answer` the longest time that the
            connection is held.
        payload: For `malformed_record` the JSON text that is put into the page.

    Raises:
        DefinitionError: An argument is out of its range, or the kind does not fit the operation.
    """

    operation: str
    kind: FaultKind
    shard: str | int | None = None
    first: int = 1
    times: int | None = 1
    every: int = 1
    delay_seconds: float = 1.0
    payload: str = _MALFORMED

    def __post_init__(self) -> None:
        """Validate, and take a kind given as its text."""
        try:
            object.__setattr__(self, "kind", FaultKind(self.kind))
        except ValueError:
            raise DefinitionError(
                f"Fault(kind={self.kind!r}) is not a kind of fault.",
                hint=f"Use one of {', '.join(kind.value for kind in FaultKind)}.",
            ) from None
        for name, value, low in (("first", self.first, 1), ("every", self.every, 1)):
            if value < low:
                raise DefinitionError(f"Fault({name}={value}): it must be {low} or more.")
        if self.times is not None and self.times < 1:
            raise DefinitionError(
                f"Fault(times={self.times}): it must be 1 or more.", hint="None means for ever."
            )
        if self.delay_seconds < 0:
            raise DefinitionError(f"Fault(delay_seconds={self.delay_seconds}) is negative.")
        for kinds, operation in ((PAGE_KINDS, "GetRecords"), (LISTING_KINDS, "DescribeStream")):
            if self.kind in kinds and self.operation != operation:
                raise DefinitionError(
                    f"Fault(operation={self.operation!r}, kind={self.kind.value!r}) can't happen.",
                    hint=f"This kind of fault belongs to operation={operation!r}.",
                )

    def strikes(self, call_number: int) -> bool:
        """Whether the n-th matching call (from 1) is struck."""
        past = call_number - self.first
        if past < 0 or past % self.every:
            return False
        return self.times is None or past // self.every < self.times


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """Faults that are tried in order; the first that strikes a call is the one that happens.

    Example:
        `FaultPlan([Fault("GetRecords", FaultKind.THROTTLING, shard=2, first=3)])`
    """

    faults: Sequence[Fault] = ()

    def __post_init__(self) -> None:
        """Freeze the list."""
        object.__setattr__(self, "faults", tuple(self.faults))

    def to_members(self) -> list[dict[str, Any]]:
        """The plan as plain values that JSON can hold."""
        return [_members(fault) for fault in self.faults]

    def to_json(self) -> str:
        """The plan as JSON text."""
        return json.dumps(self.to_members())

    @classmethod
    def from_json(cls, text: str) -> FaultPlan:
        """A plan from `to_json`.

        Raises:
            DefinitionError: The text is not a list of faults.
        """
        try:
            return cls([Fault(**members) for members in json.loads(text)])
        except (TypeError, json.JSONDecodeError) as error:
            raise DefinitionError(
                f"This is not a fault plan: {error}.",
                hint="Expected is a JSON list of objects with the members of Fault.",
            ) from error


def _members(fault: Fault) -> dict[str, Any]:
    values = {field.name: getattr(fault, field.name) for field in fields(fault)}
    return values | {"kind": fault.kind.value}
