"""How far back a change log reaches, and what a new dataset can start from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from datazone_dagster.model.snapshot_base import SnapshotBase
from datazone_dagster.model.snapshot_state import SnapshotState


@dataclass(frozen=True, slots=True)
class LogReach:
    """What is left in a change log.

    Args:
        truncated_through: Last batch that was removed; 0: none was.
        changes_since: Time of the oldest change that is left; None: none is.
        base: Snapshot since which every change is left; None: there is none.
    """

    truncated_through: int
    changes_since: datetime | None
    base: SnapshotBase | None

    @property
    def admits_datasets(self) -> bool:
        """Whether a dataset can be added to the source."""
        return not self.truncated_through or self.base is not None


def usable_base(state: SnapshotState | None, truncated_through: int) -> SnapshotBase | None:
    """Return the snapshot since whose announcement every change is in the log; None: there is none.

    A snapshot that is not handed over yet counts where no older one does and changes were removed:
    its handover waits for the datasets that begin with it.

    Args:
        state: State of the last snapshot of the source; None if there never was one.
        truncated_through: Last batch that was removed from the change log.
    """
    if state is None:
        return None
    base = state.base
    if base is None or base.batch < truncated_through:
        base = state.as_base if truncated_through and state.is_active else None
    return None if base is None or base.batch < max(1, truncated_through) else base
