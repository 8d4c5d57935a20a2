"""Alerts: which of the checks that changed are told now, and what is remembered of them.

Each notifier is told each change once. What it did not take it is told later, after what it was not
asked to take yet: neither a notifier nor an alert that always fails stands in the way of others.
A limit per hour keeps a storm from flooding a channel: what is beyond it waits, is told as it is by
then, and one message says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

HOUR_SECONDS = 3600.0
OK = "OK"

_ORDER = (OK, "WARN", "ERROR")


@dataclass(frozen=True, slots=True)
class AlertState:
    """What was told: the level of each check that does not pass, and the times of messages.

    Args:
        levels: Last told level by check, for each notifier in their order; the other checks passed.
        sent: Times of the messages of the last hour, in seconds since 1970.
        is_held: Whether somebody was told that alerts are held back.
        failed: What was not taken, as numbers of notifiers and checks; the last failure last.
    """

    levels: tuple[Mapping[str, str], ...] = ({},)
    sent: tuple[float, ...] = ()
    is_held: bool = False
    failed: tuple[tuple[int, str], ...] = ()

    def level(self, notifier: int, check: str) -> str:
        """Return the level of a check that a notifier was told last."""
        return self.levels[notifier].get(check, OK)

    def told(
        self, notifier: int, check: str, level: str, now_seconds: float | None = None
    ) -> AlertState:
        """Return the state after a notifier was told a check, or it was passed over.

        Args:
            notifier: Number of the notifier.
            check: The check.
            level: Its level.
            now_seconds: Time of the message; None: it does not count as one.
        """
        levels = {k: v for k, v in {**self.levels[notifier], check: level}.items() if v != OK}
        return replace(
            self,
            levels=(*self.levels[:notifier], levels, *self.levels[notifier + 1 :]),
            sent=self.sent if now_seconds is None else (*self.sent, now_seconds),
            failed=tuple(one for one in self.failed if one != (notifier, check)),
        )

    def not_taken(self, notifier: int, check: str) -> AlertState:
        """Return the state after a notifier did not take a check."""
        others = (one for one in self.failed if one != (notifier, check))
        return replace(self, failed=(*others, (notifier, check)))

    def due(
        self, now: Mapping[str, str], *, on: Iterable[str], least: str
    ) -> tuple[AlertState, Sequence[tuple[int, str]]]:
        """Return what to tell whom, in order, and the state after what is passed over.

        Args:
            now: Levels of the checks now.
            on: As for `must_be_told`.
            least: As for `must_be_told`.
        """
        state, due = self, list[tuple[int, str]]()
        for notifier in range(len(self.levels)):
            for check, level in now.items():
                before = self.level(notifier, check)
                if must_be_told(before, level, on=on, least=least):
                    due.append((notifier, check))
                elif level != before:
                    state = state.told(notifier, check, level)
        failed = tuple(one for one in state.failed if one in due)
        turn = {one: at for at, one in enumerate(failed)}
        last = {notifier: at for at, (notifier, _) in enumerate(failed)}
        due.sort(key=lambda one: (last.get(one[0], -1), one[0], turn.get(one, -1)))
        return replace(state, failed=failed), due

    def without_old(self, now_seconds: float) -> AlertState:
        """Return the state without messages that are older than an hour."""
        return replace(self, sent=tuple(at for at in self.sent if now_seconds - at < HOUR_SECONDS))

    def to_json(self) -> str:
        """Return the state as the text of a cursor."""
        first, *others = (dict(sorted(one.items())) for one in self.levels)
        # Older versions read the levels of the first notifier.
        return json.dumps(
            {
                "levels": first,
                "others": others,
                "sent": self.sent,
                "held": self.is_held,
                "failed": self.failed,
            }
        )

    @classmethod
    def parse(cls, text: str | None, notifiers: int = 1) -> AlertState:
        """Return the state of a cursor; what can't be read counts as not told.

        Args:
            text: The cursor. That of an older version tells what every notifier was told: levels
                by check, below `levels` or, from the sensor of `on_check`, on their own.
            notifiers: Number of notifiers; one without levels was told what the first one was.
        """
        try:
            found = json.loads(text or "{}")
            if "levels" not in found:
                found = {"levels": found}
            first, *others = (
                {str(check): str(level) for check, level in one.items()}
                for one in (found.get("levels", {}), *found.get("others", ()))
            )
            sent = tuple(float(at) for at in found.get("sent", ()))
            failed = tuple((int(at), str(check)) for at, check in found.get("failed", ()))
        except (AttributeError, TypeError, ValueError):
            return cls(({},) * notifiers)
        levels = (first, *others, *(first for _ in range(notifiers)))[:notifiers]
        return cls(levels, sent, found.get("held") is True, failed)


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
