"""Silence of runs as this process has seen it, whatever the clocks of other hosts show.

The time in a heartbeat is that of the run's host. Its clock may differ from ours, and the machine,
the database or this process may have paused. So a run counts as silent for the time in which this
process has looked at its heartbeat again and again, and found the same one. The first look of a
process starts the count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

_FORGOTTEN_AFTER = timedelta(hours=1)


@dataclass(frozen=True)
class _Seen:
    heartbeat: str | None
    looked_at: datetime
    silent_seconds: float


@dataclass
class SilenceWatch:
    """Memory of the heartbeats that one process has seen. Sensors in several threads may share it:
    the worst is a look that does not count."""

    _by_run: dict[tuple[str, float], _Seen] = field(default_factory=dict)

    def look(
        self, run_id: str, heartbeat: str | None, now: datetime, longest_gap_seconds: float
    ) -> float:
        """Return for how many seconds the looks of this process have found the same heartbeat.

        Args:
            run_id: Id of the run.
            heartbeat: Its last heartbeat, as it stands in its tag; None if it has sent none.
            now: Time of this look by our own clock; only its distance from the last one counts.
            longest_gap_seconds: What the time between two looks counts at most. With a longer gap,
                we did not look, since we or the database stood still, and so did the run perhaps.
                Sensors that allow other gaps have counts of their own.
        """
        key = (run_id, longest_gap_seconds)
        before = self._by_run.get(key)
        seconds = 0.0
        if before is not None and before.heartbeat == heartbeat:
            gap_seconds = (now - before.looked_at).total_seconds()
            seconds = before.silent_seconds + min(max(gap_seconds, 0.0), longest_gap_seconds)
        self._by_run[key] = _Seen(heartbeat, now, seconds)
        self._forget(now)
        return seconds

    def _forget(self, now: datetime) -> None:
        for key, seen in list(self._by_run.items()):
            if now - seen.looked_at > _FORGOTTEN_AFTER:
                self._by_run.pop(key, None)
