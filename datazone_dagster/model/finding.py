"""One line of a diagnosis: what was looked at, what was found, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Args:
        subject: What was looked at: a source, `lakehouse`, `dagster` or `versions`.
        check: Name of the check.
        outcome: "fail" breaks something now, "warn" may do so or could not be told.
        what: What was found, and what it means.
        hint: What to do; empty if there is nothing to do.
    """

    subject: str
    check: str
    outcome: Outcome
    what: str
    hint: str = ""
