"""Bounds of a snapshot."""

from __future__ import annotations

from dataclasses import dataclass

from datazone_dagster.errors import DefinitionError

SWEEP_LIMIT = 0.05


@dataclass(frozen=True, slots=True)
class SnapshotSettings:
    """Bounds of one run of a snapshot.

    Args:
        workers: Number of pages that are read at once; twice as many segments are open.
        sweep_limit: Share of a dataset's rows, 0 to 1, that the sweep may delete without asking.
        run_waits_seconds: Time for which a run in Dagster waits for the same thing, such as the
            drain or a dataset, before it ends; the sensor starts the next run. 0 to 86,400.

    Raises:
        DefinitionError: A value is out of its range.
    """

    workers: int = 4
    sweep_limit: float = SWEEP_LIMIT
    run_waits_seconds: float = 300.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= self.workers <= 256:
            raise DefinitionError(
                f"SnapshotSettings(workers={self.workers!r}) is out of range.",
                hint="workers is a number from 1 to 256.",
            )
        if not 0 <= self.sweep_limit <= 1:
            raise DefinitionError(
                f"SnapshotSettings(sweep_limit={self.sweep_limit!r}) is out of range.",
                hint="sweep_limit is a share from 0 to 1.",
            )
        if not 0 <= self.run_waits_seconds <= 86_400:
            raise DefinitionError(
                f"SnapshotSettings(run_waits_seconds={self.run_waits_seconds!r}) is out of range.",
                hint="run_waits_seconds is a number of seconds from 0 to 86,400.",
            )
