"""Number of records in a dataset's quarantine, and its severity."""

from __future__ import annotations

from dataclasses import dataclass

from datazone_dagster.observe.level import Level


@dataclass(frozen=True, slots=True)
class QuarantineStatus:
    """Result of the `quarantine` check of a dataset."""

    level: Level
    reason: str
    waiting: int


def quarantine_status(waiting: int, *, threshold: int, uri: str) -> QuarantineStatus:
    """Return a warning for any waiting record, an error for more than `threshold` of them."""
    if not waiting:
        return QuarantineStatus(Level.OK, "No record waits in the quarantine.", 0)
    level = Level.ERROR if waiting > threshold else Level.WARN
    records = "1 record waits" if waiting == 1 else f"{waiting:,} records wait"
    return QuarantineStatus(
        level,
        f"{records} in the quarantine (an error from {threshold + 1:,} on). Their raw form and "
        f"the reasons are in {uri}; fix the cause, then redrive them.",
        waiting,
    )
