"""Report of a run while it goes on, and at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from datazone_dagster.model.report import ApplyReport


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run has applied since its last report.

    Args:
        datasets: Report of each dataset, by id.
        ended: Whether the run has ended: this is its last report.
        lost_race: Whether it ended because another run came first.
    """

    datasets: Mapping[str, ApplyReport]
    ended: bool
    lost_race: bool = False
