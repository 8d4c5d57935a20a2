"""The rows that belong to some partitions of an asset, as conditions on columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class PartitionValue:
    """One partition of one dimension.

    Args:
        key: The partition key.
        start: Start of its time window, with a time zone; None if it is no time window.
        end: End of its time window, not included.
    """

    key: str
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """Values of one column: the keys, or the time windows, as the type of the column asks.

    Args:
        column: Name of the column.
        keys: Partition keys.
        windows: The windows of the same partitions, adjacent ones joined; empty if a partition is
            no time window.
    """

    column: str
    keys: tuple[str, ...]
    windows: tuple[tuple[datetime, datetime], ...] = ()


@dataclass(frozen=True, slots=True)
class PartitionSlice:
    """Some partitions of an asset: every row that meets all conditions of one alternative.

    Args:
        alternatives: Conditions on different columns, per alternative. Alternatives are disjoint.
        keys: Partition keys of the slice, for messages.
    """

    alternatives: tuple[tuple[Condition, ...], ...]
    keys: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the conditions are on."""
        names = (one.column for alternative in self.alternatives for one in alternative)
        return tuple(dict.fromkeys(names))


def partition_slice(
    columns: Sequence[str], partitions: Iterable[tuple[str, Sequence[PartitionValue]]]
) -> PartitionSlice:
    """Return the slice of exactly these partitions: no product of their dimensions.

    Args:
        columns: Column of each dimension.
        partitions: Key of each partition, and its value in each dimension.
    """
    keys: list[str] = []
    last_by_others: dict[tuple[PartitionValue, ...], list[PartitionValue]] = {}
    for key, values in partitions:
        keys.append(key)
        last_by_others.setdefault(tuple(values[:-1]), []).append(values[-1])
    return PartitionSlice(
        tuple(
            (
                *(_condition(name, [one]) for name, one in zip(columns, others, strict=False)),
                _condition(columns[-1], last),
            )
            for others, last in last_by_others.items()
        ),
        tuple(keys),
    )


def _condition(column: str, values: Sequence[PartitionValue]) -> Condition:
    windows = [(one.start, one.end) for one in values if one.start is not None and one.end]
    joined: list[tuple[datetime, datetime]] = []
    for start, end in sorted((start, end) for start, end in windows if start is not None and end):
        if joined and joined[-1][1] == start:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return Condition(
        column,
        tuple(one.key for one in values),
        tuple(joined) if len(windows) == len(values) else (),
    )
