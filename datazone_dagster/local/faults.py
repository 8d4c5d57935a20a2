"""Scripted faults: which call of the local DynamoDB fails, and how.

A plan is data that is sent to the server as JSON (`AdminClient.set_faults`). So it works
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
    """Kind of fault: what happens to a call."""

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
    """The connection is reset before any work is done."""
    ANSWER_LOST = "answer_lost"
    """The work is done, then the connection is reset."""
    NO_ANSWER = "no_answer"
    """The work is done, but the answer never comes: the client times out."""
    SLOW = "slow"
    """The answer comes `delay_seconds` late."""
    # Pages of GetRecords.
    EMPTY_PAGE = "empty_page"
    """No records, and an iterator at the same position."""
    MALFORMED_RECORD = "malformed_record"
    """`payload` is inserted in the middle of the page; every real record stays."""
    MISSING_NEXT_ITERATOR = "missing_next_iterator"
    """The page has its records but no NextShardIterator, even if more records follow."""
    LATE_END = "late_end"
    """The last page of a closed shard still has an iterator; an empty page follows as the end."""
    # Listings of DescribeStream. `shard` names the shard that is shown wrongly.
    HIDE_CHILDREN = "hide_children"
    """A closed shard looks like a leaf: its descendants are not listed yet."""
    HIDE_PARENT = "hide_parent"
    """The shard is not listed although its children are."""
    OPEN_PARENT = "open_parent"
    """The shard has children but no EndingSequenceNumber yet."""
    CHILDREN_FIRST = "children_first"
    """The youngest shards come first, so children are listed before their parents."""
    KEEP_EXPIRED = "keep_expired"
    """A shard that expired after 24 hours is still listed."""
    EMPTY_LAST_PAGE = "empty_last_page"
    """An empty page follows the last page."""


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
_DELAY_SECONDS_MAX = 3_600
_MALFORMED = '{"eventID":"malformed-record","eventName":"MODIFY","dynamodb":"not a record"}'


@dataclass(frozen=True, slots=True)
class Fault:
    """One scripted fault.

    Calls that match `operation` and `shard` are counted from 1 when the plan is set. The fault
    strikes call number `first`, then every `every`-th call after it, `times` times in total.

    Args:
        operation: Name of an operation such as `GetRecords`, or `*` for any.
        kind: Kind of fault.
        shard: Shard id, index in the creation order of its stream (from 0), or None for any
            shard. For listing kinds it is the shard shown wrongly, and every DescribeStream
            call counts.
        first: Number of the first call that is struck, from 1.
        times: Number of strikes; None means no limit.
        every: Distance between struck calls, in calls.
        delay_seconds: Delay of a `slow` answer, or the longest time that `no_answer` leaves the
            connection open.
        payload: JSON text that `malformed_record` puts into the page.

    Raises:
        DefinitionError: An argument is out of range, or the kind does not fit the operation.
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
        """Validate the arguments; accept a kind given as text."""
        try:
            object.__setattr__(self, "kind", FaultKind(self.kind))
        except ValueError:
            raise DefinitionError(
                f"Fault(kind={self.kind!r}) is not a kind of fault.",
                hint=f"Use one of {', '.join(kind.value for kind in FaultKind)}.",
            ) from None
        if not isinstance(self.operation, str):
            raise DefinitionError(f"Fault(operation={self.operation!r}) is not the name of one.")
        if isinstance(self.shard, bool) or not isinstance(self.shard, str | int | None):
            raise DefinitionError(
                f"Fault(shard={self.shard!r}) is neither a shard id nor an index.",
                hint="None means any shard.",
            )
        if not isinstance(self.payload, str):
            raise DefinitionError("Fault(payload=...) is not text.")
        self._check_numbers()
        for kinds, operation in ((PAGE_KINDS, "GetRecords"), (LISTING_KINDS, "DescribeStream")):
            if self.kind in kinds and self.operation != operation:
                raise DefinitionError(
                    f"Fault(operation={self.operation!r}, kind={self.kind.value!r}) can't happen.",
                    hint=f"Use operation={operation!r} with this kind of fault.",
                )

    def _check_numbers(self) -> None:
        for name, value in (("first", self.first), ("every", self.every), ("times", self.times)):
            if name == "times" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise DefinitionError(
                    f"Fault({name}={value!r}): it must be a whole number, 1 or more.",
                    hint="None means no limit." if name == "times" else "",
                )
        delay = self.delay_seconds
        is_number = isinstance(delay, int | float) and not isinstance(delay, bool)
        if not is_number or not 0 <= delay <= _DELAY_SECONDS_MAX:
            raise DefinitionError(
                f"Fault(delay_seconds={delay!r}): it must be a number of seconds, 0 to "
                f"{_DELAY_SECONDS_MAX}."
            )

    def strikes(self, call_number: int) -> bool:
        """Return whether the fault strikes the n-th matching call, counted from 1."""
        past = call_number - self.first
        if past < 0 or past % self.every:
            return False
        return self.times is None or past // self.every < self.times


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """Faults that are tried in order; the first one that strikes a call takes effect.

    Example:
        `FaultPlan([Fault("GetRecords", FaultKind.THROTTLING, shard=2, first=3)])`
    """

    faults: Sequence[Fault] = ()

    def __post_init__(self) -> None:
        """Store the faults as a tuple."""
        object.__setattr__(self, "faults", tuple(self.faults))

    def to_members(self) -> list[dict[str, Any]]:
        """Return the plan as plain values for JSON."""
        return [_members(fault) for fault in self.faults]

    def to_json(self) -> str:
        """Return the plan as JSON text."""
        return json.dumps(self.to_members())

    @classmethod
    def from_json(cls, text: str) -> FaultPlan:
        """Read a plan from the text of `to_json`.

        Raises:
            DefinitionError: The text is not a list of faults.
        """
        try:
            return cls([Fault(**members) for members in json.loads(text)])
        except (TypeError, json.JSONDecodeError) as error:
            raise DefinitionError(
                f"This is not a fault plan: {error}.",
                hint="Pass a JSON list of objects with the arguments of Fault.",
            ) from error


def _members(fault: Fault) -> dict[str, Any]:
    values = {field.name: getattr(fault, field.name) for field in fields(fault)}
    return values | {"kind": fault.kind.value}
