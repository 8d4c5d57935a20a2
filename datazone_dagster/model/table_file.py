"""A file of a Delta table as the transaction log lists it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class DataFile:
    """One live file of a table, with its statistics by column.

    `path` is percent-encoded, as in the log. `constants` are columns whose value the log has, and
    not the file. `num_records` includes rows that a deletion vector
    hides: for tables that may have vectors, use `datazone_dagster.delta.transaction_log`.
    `slots` has a bit for each slot that keys of its rows have; None: any.
    """

    path: str
    size_bytes: int
    written_at: datetime
    num_records: int
    minimum: Mapping[str, Any]
    maximum: Mapping[str, Any]
    partition: Mapping[str, Any]
    slots: int | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)
