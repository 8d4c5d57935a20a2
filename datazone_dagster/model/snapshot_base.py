"""The snapshot that a dataset can start from, in place of the first change of its source."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from datetime import datetime

_TIMES = ("announced_at", "announced_served_at")


@dataclass(frozen=True, slots=True)
class SnapshotBase:
    """A snapshot whose rows, with all changes after its announcement, show the whole table.

    Args:
        batch: Last batch before the announcement: a dataset starts after it.
        epoch: Epoch of the scanned rows.
        announced_at: Time of the announcement, UTC.
        repairs: Whether changes may have been lost before it: then a dataset that begins with
            older changes can have keys that were deleted meanwhile.
        announced_served_at: As in `SnapshotState`.
    """

    batch: int
    epoch: int
    announced_at: datetime
    repairs: bool
    announced_served_at: datetime | None = None

    @property
    def raised_at(self) -> datetime:
        """Time of the announcement to compare with times of the service."""
        return self.announced_served_at or self.announced_at

    def to_json(self) -> str:
        """Return the text of a table property."""
        stored = asdict(self)
        stored |= {name: one.isoformat() for name in _TIMES if (one := stored[name]) is not None}
        return json.dumps(stored)

    @classmethod
    def from_json(cls, text: str) -> SnapshotBase:
        """Return what a table property says; fields of later versions are ignored."""
        stored = json.loads(text)
        known = {one.name: stored[one.name] for one in fields(cls) if one.name in stored}
        times = {name: datetime.fromisoformat(known[name]) for name in _TIMES if known.get(name)}
        return cls(**{**known, **times})
