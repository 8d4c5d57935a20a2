"""Severity of a check's outcome."""

from __future__ import annotations

import enum


class Level(enum.Enum):
    """The outcome of a check: `OK` passes, `WARN` and `ERROR` fail with that severity."""

    OK = "ok"
    WARN = "warn"
    ERROR = "error"

    @property
    def passed(self) -> bool:
        """Whether the check passes."""
        return self is Level.OK
