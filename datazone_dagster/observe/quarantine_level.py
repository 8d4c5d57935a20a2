"""How many records wait in a dataset's quarantine, and whether that is too many."""

from __future__ import annotations

from dataclasses import dataclass

from datazone_dagster.observe.level import Level


@dataclass(frozen=True, slots=True)
class QuarantineStatus:
    """What the `quarantine` check of a dataset says."""

    level: Level
    reason: str
    waiting: int


def quarantine_status(waiting: int, *, threshold: int, uri: str) -> QuarantineStatus:
    """Any record that waits is a warning, more than `threshold` of them are an error."""
    if not waiting:
        return QuarantineStatus(Level.OK, "No record waits in the quarantine.", 0)
    level = Level.ERROR if waiting > threshold else Level.WARN
    records = "1 record waits" if waiting == 1 else f"{waiting:,} records wait"
    return QuarantineStatus(
        level,
        f"{records} in the quarantine (an error from {threshold + 1:,} on). Their raw form and "
        f"the reasons are in {uri}; mend what they failed on, then redrive them.",
        waiting,
    )
