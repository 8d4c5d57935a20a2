"""A complete scan of a table: stored with the dataset that it replaced the rows of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class ScanFacts:
    """A scan of a whole table. Times are UTC.

    Args:
        table_name: Name of the table.
        table_arn: ARN of the table; empty if the service returns none.
        started_at: Time before the first page: every write that succeeded before is seen.
        ended_at: Time of the last page, by the clock of the service.
        items: Number of items.
        bytes: Their size, in bytes.
        read_units: Read capacity consumed, in units.
    """

    table_name: str
    table_arn: str
    started_at: datetime
    ended_at: datetime
    items: int
    bytes: int
    read_units: float

    def to_json(self) -> str:
        """Return the text of the table property."""
        return json.dumps(
            {
                "table_name": self.table_name,
                "table_arn": self.table_arn,
                "started_at": self.started_at.isoformat(),
                "ended_at": self.ended_at.isoformat(),
                "items": self.items,
                "bytes": self.bytes,
                "read_units": self.read_units,
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str | None) -> ScanFacts | None:
        """Return the scan in the table property; None for a table that no scan has filled yet."""
        stored: dict[str, Any] = json.loads(text or "{}")
        if not stored:
            return None
        return cls(
            table_name=str(stored["table_name"]),
            table_arn=str(stored["table_arn"]),
            started_at=datetime.fromisoformat(stored["started_at"]),
            ended_at=datetime.fromisoformat(stored["ended_at"]),
            items=int(stored["items"]),
            bytes=int(stored["bytes"]),
            read_units=float(stored["read_units"]),
        )
