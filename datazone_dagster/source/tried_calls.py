"""Calls that are tried one by one: what each raised is kept, and the next one is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from datazone_dagster.errors import SourceError
from datazone_dagster.source.failures import Call, translated

T = TypeVar("T")


@dataclass
class TriedCalls:
    """Calls of one look at a source.

    Args:
        asked: Actions that were tried, in order.
        failures: Errors by action.
    """

    asked: list[str] = field(default_factory=list)
    failures: dict[str, SourceError] = field(default_factory=dict)

    def make(self, action: str, call: Call, ask: Callable[[], T]) -> T | None:
        """Make one call; keep its error, and return None then."""
        self.asked.append(action)
        try:
            with translated(call):
                return ask()
        except SourceError as error:
            self.failures[action] = error
            return None
