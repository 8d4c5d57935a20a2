"""Bounds of a drain."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from datazone_dagster.errors import DefinitionError

KEPT_AT_LEAST = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class DrainSettings:
    """Bounds of one drain.

    A sensor tick has 60 seconds; the budget leaves room for the call in flight and the commit.

    Args:
        budget_seconds: No call to the service is made after this.
        memory_budget: Bytes that the process of a drain may come to. Batches are no larger
            than an eighth of it, and get smaller while the process is near it.
        budget_bytes: Body bytes of one batch; None finds the size by what batches take.
        max_workers: Shards read at a time, and HTTP connections.
        keep_changes: How long the change log keeps changes that every dataset has applied;
            None keeps them for good, so that a dataset can be built anew from them.

    Raises:
        DefinitionError: `keep_changes` is shorter than two days: positions are rebuilt from
            the change log, and the service has records of the last 24 hours.
    """

    budget_seconds: float = 20.0
    memory_budget: int = 512 << 20
    budget_bytes: int | None = None
    max_workers: int = 16
    keep_changes: timedelta | None = None

    def __post_init__(self) -> None:
        """Check what can't be undone."""
        if self.keep_changes is not None and self.keep_changes < KEPT_AT_LEAST:
            raise DefinitionError(
                f"DrainSettings: keep_changes={self.keep_changes} is too short.",
                hint=f"Keep {KEPT_AT_LEAST.days} days or more, or None to keep all changes.",
            )
