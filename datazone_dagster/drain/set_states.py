"""States of the sets of shards of a source, by the checkpoint and what is known of runs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from datazone_dagster.drain.plan import parent_is_done
from datazone_dagster.drain.unread_times import unread_since
from datazone_dagster.model.checkpoint import Checkpoint, ShardCheckpoint
from datazone_dagster.model.drain_part import StreamPart
from datazone_dagster.model.set_state import SetState
from datazone_dagster.model.shard_set import set_number, shard_sets


@dataclass(frozen=True)
class ShardsBySet:
    """Unfinished shards of the stream that is read, by the number of their set.

    Args:
        checkpoint: Checkpoint of everything landed so far.
        sets: Number of sets.
    """

    checkpoint: Checkpoint
    sets: int

    @cached_property
    def rows(self) -> Mapping[int, Sequence[ShardCheckpoint]]:
        """The shards of each set that has any."""
        found: dict[int, list[ShardCheckpoint]] = {}
        for row in self.checkpoint.of_stream(self.checkpoint.stream_arn):
            if not row.is_done:
                found.setdefault(set_number(row.shard_id, self.sets), []).append(row)
        return found

    def states(self, batches: Mapping[str, int], part: StreamPart) -> tuple[SetState, ...]:
        """Return the state of each set.

        Args:
            batches: Last batch of each set that has landed any, by its name.
            part: What the sensor knows of the runs.
        """
        return tuple(
            SetState(
                one.name,
                len(self.rows.get(one.number, ())),
                batches.get(one.name, 0),
                one.name in part.read_at,
                part.read_at.get(one.name),
                part.run_since.get(one.name),
                self._unread_since(one.number),
                one.name in part.between_runs,
            )
            for one in shard_sets(self.sets)
        )

    def _unread_since(self, number: int) -> datetime | None:
        """Return the time of the first unread change of a set; shards that wait for others are left
        out. A lower bound; None if there are none."""
        rows = self.rows.get(number, ())
        ready = (row for row in rows if parent_is_done(row, self.checkpoint))
        return min((unread_since(row, self.checkpoint) for row in ready), default=None)
