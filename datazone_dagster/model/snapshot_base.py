"""The snapshot that a dataset can start from, in place of the first change of its source."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from datetime import datetime


@dataclass(frozen=True, slots=True)
class SnapshotBase:
    """A snapshot whose rows, with all changes after its announcement, show the whole table.

    Args:
        batch: Last batch before the announcement: a dataset starts after it.
        epoch: Epoch of the scanned rows.
        announced_at: Time of the announcement, UTC.
        repairs: Whether changes may have been lost before it: then a dataset that begins with
            older changes can have keys that were deleted meanwhile.
    """

    batch: int
    epoch: int
    announced_at: datetime
    repairs: bool

    def to_json(self) -> str:
        """Return the text of a table property."""
        return json.dumps({**asdict(self), "announced_at": self.announced_at.isoformat()})

    @classmethod
    def from_json(cls, text: str) -> SnapshotBase:
        """Return what a table property says; fields of later versions are ignored."""
        stored = json.loads(text)
        known = {one.name: stored[one.name] for one in fields(cls)}
        return cls(**{**known, "announced_at": datetime.fromisoformat(known["announced_at"])})
