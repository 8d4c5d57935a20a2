"""Bounds of a drain."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.memory_budget import MemoryBudget, check_budget, memory_budget
from datazone_dagster.model.size_policy import DRAIN_BUDGET_BYTES
from datazone_dagster.process import container

SHORTEST_RETENTION = timedelta(days=2)

LONGEST_LISTENING_SECONDS = 30.0
"""A tick has 60 seconds, and the last batch of one that listens may take `budget_seconds`."""


LATEST_SECONDS = 45.0
"""Age of a tick after which a drain that it began while it listened makes no further call."""


@dataclass(frozen=True, slots=True)
class DrainSettings:
    """Bounds of one drain.

    A sensor tick has 60 seconds; the budget leaves time for the call in flight and the commit.

    Args:
        budget_seconds: Seconds after which no call to the service is made.
        memory_budget: Memory limit of the draining process, in bytes. None, the default, is
            512 MiB, and half of the memory of the container or machine where that is less. Batches
            are no larger than an eighth of it, and no larger than 64 MiB, which a run of the
            default budget can apply whatever is in them; they shrink while the process is near the
            budget.
        budget_bytes: Size of one batch, in body bytes; None derives it from the time that batches
            take.
        max_workers: Number of shards read at a time, and of HTTP connections.
        keep_changes: Retention of changes in the change log once every dataset has applied them;
            None retains them for good, so that a dataset can be rebuilt from them.
        listen_seconds: Age up to which a sensor tick goes on for new records once it has read the
            stream to its end, from 0 to 30 seconds; 0: it ends then. Above 10, ticks of a stream
            without traffic go on to an age of 38 seconds. A tick listens in a local
            lakehouse only, and only where Dagster's instance evaluates sensors in threads. The
            default ends it two seconds before the daemon looks for due sensors, every five seconds.

    Raises:
        DefinitionError: `memory_budget` is no number of bytes, `listen_seconds` is out of its
            range, or `keep_changes` is shorter than two days: positions are rebuilt from the change
            log, and the service only has the records of the last 24 hours.
    """

    budget_seconds: float = 20.0
    memory_budget: int | None = None
    budget_bytes: int | None = None
    max_workers: int = 16
    keep_changes: timedelta | None = None
    listen_seconds: float = 18.0

    @property
    def memory(self) -> MemoryBudget:
        """Memory budget of this process."""
        return memory_budget(
            "DrainSettings(memory_budget=...)",
            self.memory_budget,
            DRAIN_BUDGET_BYTES,
            container.memory_limit_bytes(),
        )

    def at_age(self, seconds: float) -> DrainSettings:
        """Return the settings of a drain that begins when its tick is this old, in seconds."""
        left = max(0.0, LATEST_SECONDS - seconds)
        return replace(self, budget_seconds=min(self.budget_seconds, left))

    def __post_init__(self) -> None:
        """Check the budget, the age of ticks, and the retention: removed changes are gone."""
        check_budget("DrainSettings", self.memory_budget)
        if not 0 <= self.listen_seconds <= LONGEST_LISTENING_SECONDS:
            raise DefinitionError(
                f"DrainSettings: listen_seconds={self.listen_seconds!r} is not allowed.",
                hint=f"Give 0 to {LONGEST_LISTENING_SECONDS:g}: Dagster drops a tick after 60 s.",
            )
        if self.keep_changes is not None and self.keep_changes < SHORTEST_RETENTION:
            raise DefinitionError(
                f"DrainSettings: keep_changes={self.keep_changes} is too short.",
                hint=f"Keep {SHORTEST_RETENTION.days} days or more, or None to keep all changes.",
            )
