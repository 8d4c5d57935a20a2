"""A commit in the history of a table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class TableCommit:
    """One version of a table, as its log tells it.

    Args:
        version: Version that the commit made.
        at: Time of the commit by the clock of its writer; None if the log does not say.
        operation: Operation, as the writer names it.
        inserted: Rows that it inserted; None if the log does not say, as the other two.
        updated: Rows that it updated.
        deleted: Rows that it deleted.
    """

    version: int
    at: datetime | None
    operation: str
    inserted: int | None = None
    updated: int | None = None
    deleted: int | None = None
