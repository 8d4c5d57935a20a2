"""Seats of a run of all transforms: what its first step did for the others, until they take it.

Until the last one is taken, the run keeps the slots of its transforms and sends heartbeats: a step
that waits for a slot of its pool does not make it look dead.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from datazone_dagster.api import Transform
from datazone_dagster.dagster_glue.assets.lazy_apply import LazyApply
from datazone_dagster.dagster_glue.assets.repeated_checks import RepeatedChecks
from datazone_dagster.dagster_glue.checks.applied import Applied
from datazone_dagster.model.turns import Turn


@dataclass
class Seat:
    """One transform of such a run. Its `error` is what it failed with."""

    lazy_apply: LazyApply
    error: Exception | None = None
    turns: Generator[dict[str, Applied] | Turn, None, bool] | None = None
    checks: RepeatedChecks = field(default_factory=RepeatedChecks)
    is_repeated: bool = False

    @property
    def transform(self) -> Transform:
        """The transform."""
        return self.lazy_apply.transform

    def is_done(self) -> bool:
        """Return whether it was applied; False if it had to wait all the time.

        Raises:
            Exception: That of the transform.
        """
        if self.error is not None:
            raise self.error
        return bool(self.lazy_apply.done)


class HandedSeats:
    """Seats that wait for their steps, by run and transform."""

    def __init__(self) -> None:
        self._seats: dict[str, dict[str, Seat]] = {}
        self._ends: dict[str, Callable[[], None]] = {}

    def __bool__(self) -> bool:
        return bool(self._seats)

    def hand_over(self, run_id: str, seats: dict[str, Seat], end: Callable[[], None]) -> None:
        """Keep seats for their steps; call `end` once the last one is taken."""
        self._seats[run_id] = seats
        self._ends[run_id] = end

    def take(self, run_id: str, name: str) -> Seat | None:
        """Return the seat of a transform; None if it has none, or has taken it."""
        seats = self._seats.get(run_id)
        seat = None if seats is None else seats.pop(name, None)
        if seats is not None and not seats:
            del self._seats[run_id]
            self._ends.pop(run_id)()
        return seat
