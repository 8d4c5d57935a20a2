"""Changes that the change log has, so that one that is delivered again lands once.

A change that comes through Kinesis has the same order number in each delivery, whatever its
position. The numbers of the latest changes are kept in the process. For an older one the change
log is asked: its files are pruned by time, and all deliveries of a change have its time. So a
change is recognised as far back as the change log reaches. The numbers of erased changes are a
property of the log: see `changelog.erased_events`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.changelog import erased_events
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.record import ChangeRecords, MalformedRecord
from datazone_dagster.model.size_policy import MOST_KNOWN_CHANGES
from datazone_dagster.model.version import EPOCH_DIGITS, SEQUENCE_DIGITS

LOADED = timedelta(minutes=10)
"""Age of the changes that a new process reads from the change log at first."""

_LAST = datetime.max.replace(tzinfo=timezone.utc)
_COLUMNS = (Log.VERSION, Log.EVENT_TIME)


class KnownEvents:
    """Order numbers of landed changes, by the second of their time.

    From `_since` on, the numbers in memory are all that landed; before it, the change log is asked.

    What one batch adds counts only once the batch is committed: after a failure the state has to
    be dropped.

    Args:
        most: Number of changes kept.
    """

    def __init__(self, most: int = MOST_KNOWN_CHANGES) -> None:
        self.most = most
        self._by_second: dict[int, set[str]] = {}
        self._since: int | None = None
        self._older: set[str] = set()
        self._erased: tuple[list[str | None], frozenset[str]] = ([], frozenset())
        self._head = 0
        self._log: ChangeLogSnapshot | None = None

    def begin(self, log: ChangeLogSnapshot) -> KnownEvents:
        """Begin a batch that is based on this version of the change log; return itself.

        Raises:
            StorageError: The store failed.
        """
        self._log = log
        self._older.clear()
        erased = [log.properties.get(one) for one in erased_events.KEPT_DAYS]
        if erased != self._erased[0]:
            self._erased = erased, erased_events.erased_in(log.properties)
        # Batches of a scan have no change of the stream.
        if log.head < self._head or (log.head > self._head and log.landed_since(self._head)):
            self._by_second.clear()
            self._since = None
        self._head = log.head
        return self

    def committed(self, log: ChangeLogSnapshot) -> None:
        """Record that the batch is committed; forget the oldest changes beyond the limit."""
        self._head, self._log = log.head, None
        self._older.clear()
        self._shrink()

    def unseen(self, records: ChangeRecords) -> ChangeRecords:
        """Return the records whose change neither the change log nor this batch has, nor had.

        Raises:
            StorageError: The store failed.
        """
        if not len(records):
            return records
        if self._since is None:
            self._load(max(records.created_at))
        since = self._since or 0
        old = {
            digits: second
            for digits, second in zip(records.sequence_digits, records.created_at, strict=True)
            if second < since
        }
        landed = self._landed(old) if old else set()
        fresh = []
        for at, (digits, second) in enumerate(
            zip(records.sequence_digits, records.created_at, strict=True)
        ):
            known = self._older if second < since else self._by_second.setdefault(second, set())
            if digits in known or (second < since and digits in landed):
                continue
            if digits in self._erased[1]:
                continue
            known.add(digits)
            fresh.append(at)
        return records if len(fresh) == len(records) else records.taken(fresh)

    def not_erased(self, malformed: Iterable[MalformedRecord]) -> list[MalformedRecord]:
        """Return the malformed records whose change was not erased, as far as it can be told.

        One without an order number can't be told.
        """
        return [
            one
            for one in malformed
            if one.sequence_number is None
            or f"{one.sequence_number:0{SEQUENCE_DIGITS}d}" not in self._erased[1]
        ]

    def _load(self, newest: int) -> None:
        """Read the changes of the last minutes from the change log."""
        assert self._log is not None, "a batch was begun"
        start = datetime.fromtimestamp(newest, timezone.utc) - LOADED
        self._since = int(start.timestamp())
        for rows in self._log.rows_of_time(start, _LAST, _COLUMNS):
            # What `_shrink` has dropped stays dropped: a part of it would count as all of it.
            since = datetime.fromtimestamp(self._since, timezone.utc)
            recent = rows.filter(
                pc.and_(
                    pc.is_valid(rows[Log.VERSION]), pc.greater_equal(rows[Log.EVENT_TIME], since)
                )
            )
            seconds = pc.cast(recent[Log.EVENT_TIME], pa.timestamp("s", tz="UTC")).cast(pa.int64())
            for digits, second in zip(
                _numbers(recent).to_pylist(), seconds.to_pylist(), strict=True
            ):
                self._by_second.setdefault(second, set()).add(digits)
            self._shrink()

    def _landed(self, wanted: Mapping[str, int]) -> set[str]:
        """Return those of these order numbers, given with their seconds, that the log has."""
        assert self._log is not None, "a batch was begun"
        digits = pa.array(wanted, pa.string())
        found: set[str] = set()
        for rows in self._log.rows_at(sorted(set(wanted.values())), (Log.VERSION,)):
            numbers = _numbers(rows)
            found.update(numbers.filter(pc.is_in(numbers, digits)).to_pylist())
        return found

    def _shrink(self) -> None:
        excess = sum(map(len, self._by_second.values())) - self.most
        for second in sorted(self._by_second):
            if excess <= 0:
                return
            excess -= len(self._by_second.pop(second))
            self._since = max(self._since or 0, second + 1)


def _numbers(rows: pa.Table) -> pa.ChunkedArray:
    return pc.utf8_slice_codeunits(rows[Log.VERSION], EPOCH_DIGITS)


def tied(records: ChangeRecords) -> int:
    """Return the number of records that have the time and the item of an earlier one."""
    times = [digits[:_TIME_DIGITS] for digits in records.sequence_digits]
    if len(set(times)) == len(times):
        return 0
    return len(times) - len(set(zip(times, records.keys, strict=True)))


_TIME_DIGITS = 18
"""Digits of an order number that are its time: see `model.event_order`."""
