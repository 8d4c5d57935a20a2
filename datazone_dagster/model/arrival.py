"""How changes arrived that come through Kinesis, which promises neither order nor once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from datazone_dagster.model.service_limits import RETENTION


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a drain has met besides the changes that it landed.

    Args:
        repeated: Number of changes that the change log had already: they landed once.
        others: Number of changes of other tables in the same stream.
        tied: Number of changes whose time is that of another change of their item: which came
            first can't be told.
        is_coarse: Whether the times of changes have milliseconds only.
        retention: Time that the stream keeps a record.
    """

    repeated: int = 0
    others: int = 0
    tied: int = 0
    is_coarse: bool = False
    retention: timedelta = RETENTION

    def then(self, later: Arrival) -> Arrival:
        """Combine two drains: sums of both, the state of the later."""
        return replace(
            later,
            repeated=self.repeated + later.repeated,
            others=self.others + later.others,
            tied=self.tied + later.tied,
        )
