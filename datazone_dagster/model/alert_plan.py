"""Alerts: which of the checks that changed are told now, and what is remembered of them.

Each change is told once. A limit per hour keeps a storm from flooding a channel: what is beyond it
waits, is told as it is by then, and one message says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

HOUR_SECONDS = 3600.0
OK = "OK"

_ORDER = (OK, "WARN", "ERROR")


@dataclass(frozen=True, slots=True)
class AlertState:
    """What was told: the level of each check that does not pass, and the times of messages.

    Args:
        levels: Last told level by check; the others passed.
        sent: Times of the messages of the last hour, in seconds since 1970.
        is_held: Whether somebody was told that alerts are held back.
    """

    levels: Mapping[str, str] = field(default_factory=dict)
    sent: tuple[float, ...] = ()
    is_held: bool = False

    def told(self, check: str, level: str, now_seconds: float | None) -> AlertState:
        """Return the state after a check was told, or passed over if there is no time."""
        levels = {**self.levels, check: level}
        sent = self.sent if now_seconds is None else (*self.sent, now_seconds)
        return replace(self, levels={k: v for k, v in levels.items() if v != OK}, sent=sent)

    def without_old(self, now_seconds: float) -> AlertState:
        """Return the state without messages that are older than an hour."""
        return replace(self, sent=tuple(at for at in self.sent if now_seconds - at < HOUR_SECONDS))

    def to_json(self) -> str:
        """Return the state as the text of a cursor."""
        return json.dumps(
            {"levels": dict(sorted(self.levels.items())), "sent": self.sent, "held": self.is_held}
        )

    @classmethod
    def parse(cls, text: str | None) -> AlertState:
        """Return the state of a cursor; what can't be read counts as not told."""
        try:
            found = json.loads(text or "{}")
            levels = {str(check): str(level) for check, level in found.get("levels", {}).items()}
            sent = tuple(float(at) for at in found.get("sent", ()))
        except (AttributeError, TypeError, ValueError):
            return cls()
        return cls(levels, sent, found.get("held") is True)


def must_be_told(before: str, level: str, *, on: Iterable[str], least: str) -> bool:
    """Return whether a change of a check is told.

    Args:
        before: Level that was told last.
        level: Level now: `"OK"`, `"WARN"` or `"ERROR"`.
        on: What is told: `"fail"` for new and changed failures, `"recover"`.
        least: Lowest level that is told.
    """
    if level == before:
        return False
    if _ORDER.index(level) < _ORDER.index(least):
        return "recover" in on and _ORDER.index(before) >= _ORDER.index(least)
    return "fail" in on
