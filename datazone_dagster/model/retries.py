"""Waits after applications that failed, and what a run tells the next one about them. Pure.

The transforms that share a run fail one by one, and each has its own wait. A run carries, for each
transform that failed before, how often it did. What it adds to that is all that the next run needs
to know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

FIRST_WAIT = timedelta(seconds=15)
LONGEST_WAIT = timedelta(minutes=5)


def wait_after(failures: int) -> timedelta:
    """Return the wait after applications that failed in a row: it doubles, up to 5 minutes."""
    doubled = FIRST_WAIT * (1 << min(max(0, failures - 1), 10))
    return min(doubled, LONGEST_WAIT)


@dataclass(frozen=True, slots=True)
class Retry:
    """Failures of a transform in a row.

    Args:
        failures: Their number.
        failed_at: Time of the latest one.
        error: Start of its error.
        run_id: Run in which it happened.
    """

    failures: int
    failed_at: datetime
    error: str
    run_id: str

    @property
    def until(self) -> datetime:
        """Time from which the transform is tried again."""
        return self.failed_at + wait_after(self.failures)


def to_json(retries: Mapping[str, Retry]) -> str:
    """Return failures, by transform, as the text of a tag."""
    return json.dumps(
        {
            name: [one.failures, one.failed_at.isoformat(), one.error, one.run_id]
            for name, one in retries.items()
        }
    )


def from_json(text: str | None) -> dict[str, Retry]:
    """Return failures from the text of a tag; none where somebody has changed the text."""
    try:
        return {
            name: Retry(int(failures), datetime.fromisoformat(at), str(error), str(run_id))
            for name, (failures, at, error, run_id) in json.loads(text or "{}").items()
        }
    except (ValueError, TypeError, AttributeError):
        return {}


def carried_on(
    before: Mapping[str, Retry], failed: Mapping[str, Retry], ended: datetime | None
) -> dict[str, Retry]:
    """Return the failures that count after a run.

    A transform that was still waiting when the run ended keeps its failures; one that the run could
    try and that did not fail has none.

    Args:
        before: Failures that the run was started with.
        failed: Failures in the run.
        ended: End of the run; None: it goes on.
    """
    waiting = {name: one for name, one in before.items() if ended is None or one.until >= ended}
    return {**waiting, **failed}
