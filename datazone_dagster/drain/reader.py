"""Reader of the planned shards: page by page in turn, within a budget of time and bytes.

Shards take turns a page at a time, so that a hot shard does not starve the others. Many threads
wait for the service; the CPU work is done by the drain's own thread: it parses a page and passes
it to the sink while the page is in the processor's cache. Nothing here is durable: a record
counts only once the flow has committed it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from queue import SimpleQueue

from datazone_dagster.changelog.known_events import KnownEvents, tied
from datazone_dagster.drain.outcome import ShardOutcome
from datazone_dagster.drain.plan import ShardRead, overdue_gap, trim_gap, vanished_gap
from datazone_dagster.drain.service_now import told_now
from datazone_dagster.errors import (
    ExpiredIteratorError,
    ShardNotFoundError,
    SourceError,
    TrimmedDataError,
)
from datazone_dagster.model.checkpoint import ShardCheckpoint
from datazone_dagster.model.protocols import Answer, ParsesLater, StreamClient
from datazone_dagster.model.record import ChangeRecords, MalformedRecord, RecordsPage
from datazone_dagster.model.service_limits import ITERATOR_LIFETIME_SECONDS
from datazone_dagster.model.shard import (
    TRIM_HORIZON,
    IteratorStart,
    after,
    is_kinesis,
    service_arn,
)
from datazone_dagster.text import shown

ITERATOR_USE_SECONDS = ITERATOR_LIFETIME_SECONDS - 60
"""Age up to which an iterator is used: one minute is reserved for the call that uses it."""

EMPTY_PAGES_FROM_A_NEW_ITERATOR = 8
"""Empty pages read on an open shard before it counts as read to its latest position.

Stretches of empty pages do occur in the middle of a shard. A cached iterator is already past
those it has read, so one page a drain is enough there; each call is billed.
"""

EMPTY_PAGES_OF_A_CLOSED_SHARD = 100
"""Empty pages read in one drain of a shard whose end is told; the next drain continues there."""


@dataclass(frozen=True, slots=True)
class CachedIterator:
    """A shard iterator that continues where the last drain of this process stopped."""

    sequence_number: int | None
    shard_iterator: str
    issued_at_seconds: float


IteratorCache = dict[tuple[str, str], CachedIterator]
"""Iterators by stream ARN and shard id. Hints: used only if the committed position is the same."""


@dataclass(frozen=True, slots=True)
class ReadBudget:
    """Bounds of one drain. `deadline_seconds` is on the same clock as `monotonic`.

    `shutdown_requested` is called between two pages: pages read until then count.
    """

    deadline_seconds: float
    bytes: int
    max_workers: int
    monotonic: Callable[[], float]
    shutdown_requested: Callable[[], bool] = lambda: False

    def is_spent(self, bytes_read: int) -> bool:
        """Return whether no further page may be read."""
        return (
            bytes_read >= self.bytes
            or self.monotonic() >= self.deadline_seconds
            or self.shutdown_requested()
        )


FEWEST_CALLS = 2
"""Concurrent calls when answers arrive faster than they are parsed: the next page is ready in time,
and no answer waits until it has left the processor's cache."""

Sink = Callable[[ShardCheckpoint, ChangeRecords, list[MalformedRecord]], int]
"""Takes the records of one page; pages of one shard come in order, in the thread of the drain.

It returns how many of the records it quarantined as malformed.
"""


class _ShardCursor:
    """Reads one shard: calls of `ask`, in any thread, alternate with calls of `take`."""

    def __init__(
        self,
        client: StreamClient,
        read: ShardRead,
        cached: CachedIterator | None,
        now: datetime,
        monotonic: Callable[[], float],
        sink: Sink,
        known: KnownEvents | None,
    ) -> None:
        self._client = client
        self._sink = sink
        self._known = known
        self._read = read
        self._now = now
        self._monotonic = monotonic
        self._iterator = cached.shard_iterator if cached else None
        self._issued_at_seconds = cached.issued_at_seconds if cached else 0.0
        self._empty_pages_left = 1 if cached else EMPTY_PAGES_FROM_A_NEW_ITERATOR
        self._is_ordered = not is_kinesis(read.shard.stream_arn)
        self._probe_due = (
            self._is_ordered and cached is None and read.shard.sequence_number is not None
        )
        self._probing = False
        if read.closed or not self._is_ordered:  # Kinesis tells when there is no more
            self._empty_pages_left = EMPTY_PAGES_OF_A_CLOSED_SHARD
        self._skip_before = (
            int(read.shard.skip_before.timestamp()) if read.shard.skip_before else None
        )
        self.outcome = ShardOutcome(read.shard, sequence_number=read.shard.sequence_number)

    def ask(self) -> Answer | None:
        """Wait for the next page; return None if no page can come."""
        try:
            return self._next_answer()
        except SourceError as error:
            self.outcome.error = error
            return None

    def take(self, answer: Answer) -> bool:
        """Parse a page and pass it on; return False if this drain needs no more of the shard."""
        try:
            page = answer()
        except SourceError as error:
            self.outcome.error = error
            return False
        if self._probing:
            self._probing = False
            self._note_older(ChangeRecords.of(page.records))
            self.outcome.at_latest = True
            return False
        self._take(page)
        return self._goes_on(page)

    def to_cache(self) -> CachedIterator | None:
        """Return the iterator that the next drain can continue with."""
        if self._iterator is None or self.outcome.ended or self.outcome.error:
            return None
        return CachedIterator(self.outcome.sequence_number, self._iterator, self._issued_at_seconds)

    def _next_answer(self) -> Answer | None:
        if self._probing:
            return self._first_answer()
        try:
            return self._answer_in_order()
        except TrimmedDataError:
            gap = trim_gap(self._shard_so_far(), self._answered_at())
            self.outcome.gap = self.outcome.gap or gap
            self._open_iterator(TRIM_HORIZON)
            return self._get_records()
        except ShardNotFoundError:
            if self._read.listed_open:
                raise  # the two answers contradict each other: no reason to give up the shard
            self.outcome.gap = self.outcome.gap or vanished_gap(self._shard_so_far(), self._now)
            self.outcome.ended = self.outcome.vanished = True
            return None

    def _first_answer(self) -> Answer:
        """Ask for the first page that the service still has of the shard.

        Its records are the proof that a shard in which nothing new was found is still the shard
        that was read before. A stream that was made again has none of them.
        """
        shard = self._read.shard
        arn = service_arn(shard.stream_arn)
        return self._answer(self._client.shard_iterator(arn, shard.shard_id, TRIM_HORIZON))

    def _answer_in_order(self) -> Answer:
        """Ask for the page after the last one, with a new iterator if the current one expired."""
        if self._iterator is None:
            self._open_iterator(self._position())
        try:
            return self._get_records()
        except ExpiredIteratorError:
            self._open_iterator(self._position())
            return self._get_records()

    def _position(self) -> IteratorStart:
        number = self.outcome.sequence_number
        nothing_new = number == self._read.shard.sequence_number
        return self._read.start if number is None or nothing_new else after(number)

    def _shard_so_far(self) -> ShardCheckpoint:
        return replace(self._read.shard, sequence_number=self.outcome.sequence_number)

    def _open_iterator(self, start: IteratorStart) -> None:
        shard = self._read.shard
        arn = service_arn(shard.stream_arn)
        self._iterator = self._client.shard_iterator(arn, shard.shard_id, start)
        if self._is_ordered and self.outcome.sequence_number is None:
            self._note_overdue()
        self._issued_at_seconds = self._monotonic()
        # The new iterator is before stretches of empty pages that the old one had passed.
        self._empty_pages_left = max(self._empty_pages_left, EMPTY_PAGES_FROM_A_NEW_ITERATOR)

    def _note_overdue(self) -> None:
        """Judge what the plan may have missed: that of a run lists nothing."""
        row, note = self._read.shard, self._read.shard.gap
        since = self._read.unread_since or row.read_through
        if note is None or not note.is_open or note.gap.until != row.tip_at:
            self.outcome.gap = overdue_gap(row, since, self._answered_at()) or self.outcome.gap

    def _answered_at(self) -> datetime:
        """Return the time of the last answer, whatever has slept since the drain began."""
        return told_now(self._client) or self._now

    def _get_records(self) -> Answer:
        assert self._iterator is not None
        return self._answer(self._iterator)

    def _answer(self, iterator: str) -> Answer:
        self.outcome.calls += 1
        if isinstance(self._client, ParsesLater):
            return self._client.ask_for_records(iterator)
        page = self._client.get_records(iterator)
        return lambda: page

    def _goes_on(self, page: RecordsPage) -> bool:
        if page.next_iterator is None:
            self.outcome.ended = True
            return False
        self._iterator = page.next_iterator
        self._issued_at_seconds = self._monotonic()
        at_latest = page.behind_milliseconds == 0 and not self._read.closed
        if not at_latest:
            if page.records or page.malformed:
                self._empty_pages_left = max(self._empty_pages_left, 1)
                return True
            self._empty_pages_left -= 1
            if self._empty_pages_left > 0:
                return True
        nothing_new = self.outcome.sequence_number == self._read.shard.sequence_number
        if self._probe_due and nothing_new and not self._read.closed:
            self._probe_due, self._probing = False, True
            return True
        # An empty page with an age comes before more records, perhaps hours of them.
        self.outcome.at_latest = not self._read.closed and not page.behind_milliseconds
        return False

    def _take(self, page: RecordsPage) -> None:
        outcome = self.outcome
        # A renewed iterator or a repeated answer must not land a record twice.
        records = ChangeRecords.of(page.records)
        new = records.newer_than(outcome.sequence_number)
        malformed = _after(page.malformed, outcome.sequence_number)
        if new is not records and self._is_ordered:
            self._note_older(records)
        new, undated = new.dated(max(int(self._now.timestamp()), self._skip_before or 0))
        outcome.undated += undated
        if new:
            outcome.sequence_number = new.last_position
            newest = new.created_at[-1] if self._is_ordered else max(new.created_at)
            outcome.event_time_seconds = newest
        if page.position is not None and page.position > (outcome.sequence_number or 0):
            outcome.sequence_number = page.position
            outcome.event_time_seconds = outcome.event_time_seconds or page.position_at
        outcome.body_bytes += page.body_bytes
        outcome.others += page.others
        landed = new.created_from(self._skip_before)
        if self._known is not None:
            came = len(landed) + len(malformed)
            landed, malformed = self._known.unseen(landed), self._known.not_erased(malformed)
            outcome.repeated += came - len(landed) - len(malformed)
            outcome.tied += tied(landed)
        if not landed and not malformed:
            return
        outcome.malformed += len(malformed)
        if landed:
            outcome.records += len(landed)
            outcome.record_bytes += sum(landed.size_bytes)
            first, last = min(landed.created_at), max(landed.created_at)
            if outcome.created_from_seconds is not None:
                first = min(first, outcome.created_from_seconds)
            if outcome.created_to_seconds is not None:
                last = max(last, outcome.created_to_seconds)
            outcome.created_from_seconds, outcome.created_to_seconds = first, last
        quarantined = self._sink(self._read.shard, landed, malformed)
        outcome.records -= quarantined
        outcome.malformed += quarantined

    def _note_older(self, records: ChangeRecords) -> None:
        """Keep the records of one page that the change log must have already."""
        position = self._read.shard.sequence_number
        if position is not None and not self.outcome.older:
            self.outcome.older = [
                record
                for record in records.created_from(self._skip_before)
                if record.sequence_number <= position
            ]


def _after(malformed: list[MalformedRecord], position: int | None) -> list[MalformedRecord]:
    """Return the malformed records that are not known to be at or before a position."""
    return [one for one in malformed if one.position is None or one.position > (position or 0)]


def read_shards(
    client: StreamClient,
    reads: Sequence[ShardRead],
    iterators: IteratorCache,
    budget: ReadBudget,
    now: datetime,
    logger: logging.Logger,
    sink: Sink,
    known: KnownEvents | None = None,
) -> list[ShardOutcome]:
    """Read the shards until each is at its latest position or end, or the budget is spent.

    Shards get their turns in the order of `reads`. A failing shard carries its error in its
    outcome, and the other shards continue. Records read before the failure count. An exception
    from the sink ends the drain.
    """
    cursors = [
        _ShardCursor(
            client, read, _usable(iterators, read, budget), now, budget.monotonic, sink, known
        )
        for read in reads
    ]
    _read_in_turns(cursors, budget)
    _update_cache(iterators, cursors)
    for cursor in cursors:
        if cursor.outcome.error is not None:
            logger.warning(
                "Shard %s could not be read further in this drain: %s",
                shown(cursor.outcome.row.shard_id),
                cursor.outcome.error,
            )
    return [cursor.outcome for cursor in cursors]


def _read_in_turns(cursors: Sequence[_ShardCursor], budget: ReadBudget) -> None:
    """Parse answers in this thread while others are in flight: as many as keep it busy."""
    if not cursors:
        return
    waiting = deque(cursors)
    asked: dict[Future[Answer | None], _ShardCursor] = {}
    answered: SimpleQueue[Future[Answer | None]] = SimpleQueue()
    bytes_read = 0
    workers = at_once = max(1, min(budget.max_workers, len(cursors)))
    with ThreadPoolExecutor(workers, thread_name_prefix="datazone-drain") as pool:
        while True:
            while waiting and len(asked) < at_once and not budget.is_spent(bytes_read):
                cursor = waiting.popleft()
                call = pool.submit(cursor.ask)
                asked[call] = cursor
                call.add_done_callback(answered.put)
            if not asked:
                return
            had_to_wait = answered.empty()
            call = answered.get()
            at_once = min(workers, at_once + 1 if had_to_wait else max(FEWEST_CALLS, at_once - 1))
            cursor, answer = asked.pop(call), call.result()
            if answer is None:
                continue
            before = cursor.outcome.body_bytes
            if cursor.take(answer):
                waiting.append(cursor)
            bytes_read += cursor.outcome.body_bytes - before


def _usable(iterators: IteratorCache, read: ShardRead, budget: ReadBudget) -> CachedIterator | None:
    cached = iterators.get((read.shard.stream_arn, read.shard.shard_id))
    if cached is None or cached.sequence_number != read.shard.sequence_number:
        return None
    alive = budget.monotonic() - cached.issued_at_seconds < ITERATOR_USE_SECONDS
    return cached if alive else None


def _update_cache(iterators: IteratorCache, cursors: Sequence[_ShardCursor]) -> None:
    for cursor in cursors:
        key = (cursor.outcome.row.stream_arn, cursor.outcome.row.shard_id)
        cached = cursor.to_cache()
        if cached is None:
            iterators.pop(key, None)
        else:
            iterators[key] = cached
