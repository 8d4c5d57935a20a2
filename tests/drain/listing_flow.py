"""Drains of a scripted stream without tables: list, plan, read, advance."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from datetime import datetime, timedelta, timezone

from datazone_dagster.drain.checkpoint_update import updated_checkpoint
from datazone_dagster.drain.outcome import ShardOutcome
from datazone_dagster.drain.plan import DrainPlan, plan_drain
from datazone_dagster.drain.pruning import pruned
from datazone_dagster.drain.reader import IteratorCache, ReadBudget, read_shards
from datazone_dagster.drain.shard_listing import ListingState, ShardListing
from datazone_dagster.model.checkpoint import Checkpoint, ShardCheckpoint
from datazone_dagster.model.protocols import ListsInParts, StreamClient
from datazone_dagster.model.record import ChangeRecord, ChangeRecords
from datazone_dagster.testing import ScriptedStream

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)
LOGGER = logging.getLogger(__name__)


class Drains:
    """One process that drains a stream; a new one continues from the checkpoint alone.

    Its time is `seconds`, on the monotonic clock and as the age of `NOW`.

    Args:
        client: Client of the stream to drain.
        calls: Returns the number of DescribeStream calls so far.
    """

    def __init__(self, client: StreamClient, calls: Callable[[], int], now: datetime = NOW) -> None:
        assert isinstance(client, ListsInParts)
        self.client, self._calls, self._began_at = client, calls, now
        self._parts: ListsInParts = client
        self.stream_arn = client.stream_arns()[-1]
        self.seconds = 0.0
        self.checkpoint = Checkpoint()
        self.state: ListingState | None = None
        self.iterators: IteratorCache = {}
        self.landed: list[ChangeRecord] = []
        self.plan: DrainPlan | None = None
        self.outcomes: list[ShardOutcome] = []
        self.unknown_shards: Collection[str] = ()

    @property
    def now(self) -> datetime:
        return self._began_at + timedelta(seconds=self.seconds)

    def new_process(self) -> None:
        self.state, self.iterators = None, {}

    def drain(self, after_seconds: float = 0.0) -> int:
        """Drain once after some time, and return the number of DescribeStream calls."""
        self.seconds += after_seconds
        before = self._calls()
        listing = ShardListing(
            self._parts,
            self.stream_arn,
            self.checkpoint,
            self.state,
            now=self.now,
            seconds=self.seconds,
            logger=LOGGER,
            unknown_shards=self.unknown_shards,
        )
        try:
            listing.look()
        finally:
            self.state = listing.state
        if listing.is_usable:
            self._read()
        return self._calls() - before

    def caught_up(self, at_most: int = 20) -> None:
        """Drain until nothing more is found."""
        for _ in range(at_most):
            before = self._progress()
            self.drain(0.1)
            if before == self._progress():
                return
        raise AssertionError(f"not caught up after {at_most} drains")

    def _progress(self) -> object:
        rows = self.checkpoint.shards
        return len(self.landed), {key: row.state for key, row in rows.items()}

    def _read(self) -> None:
        assert self.state is not None
        described = self.state.view.described()
        plan = plan_drain(described, self.checkpoint, start="trim_horizon", now=self.now)
        budget = ReadBudget(1.0, 1 << 30, max_workers=1, monotonic=lambda: 0.0)
        outcomes = read_shards(
            self.client, plan.reads, self.iterators, budget, self.now, LOGGER, self._land
        )
        reached = updated_checkpoint(plan.checkpoint, outcomes, self.now, self.now)
        self.checkpoint = pruned(reached, described, now=self.now)
        self.plan, self.outcomes = plan, outcomes

    def _land(self, row: ShardCheckpoint, records: ChangeRecords, malformed: object) -> int:
        self.landed += list(records)
        return 0


def drains_of(stream: ScriptedStream) -> Drains:
    """Return a process that drains a scripted stream."""
    return Drains(stream, lambda: stream.calls.get("DescribeStream", 0))


def many_shards(shards: int = 12, page: int = 4) -> ScriptedStream:
    """Return a stream whose listing has several pages."""
    stream = ScriptedStream(shards=shards)
    stream.shards_per_page = page
    return stream
