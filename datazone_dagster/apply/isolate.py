"""Search for the changes that a function fails on, by calls on parts of a chunk. Pure.

The search halves by key first, so that all changes of a key stay together, then by change within
a failing key. A failure that needs several keys together is never blamed on single changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from datazone_dagster.model.quarantine_policy import is_hopeless, is_over_limit

Fails = Callable[[Sequence[int]], str | None]
"""Calls the function on these rows of the chunk: the reason if it fails, None if it passes."""


class NotIsolatedError(Exception):
    """The failure can't be pinned on single keys; the message says why."""


class TooManyFailingError(NotIsolatedError):
    """The function fails on more keys than may be quarantined."""


@dataclass
class _Search:
    fails: Fails
    keys: int
    limit: float
    any_passed: bool = False
    found: dict[int, str] = field(default_factory=dict)
    failing_keys: int = 0

    def ask(self, rows: Sequence[int]) -> str | None:
        reason = self.fails(rows)
        self.any_passed = self.any_passed or reason is None
        return reason

    def blame(self, rows: Mapping[int, str]) -> None:
        self.found.update(rows)
        self.failing_keys += 1
        if is_hopeless(self.failing_keys, any_passed=self.any_passed):
            raise NotIsolatedError(f"it fails on every one of the first {self.failing_keys} keys")
        if is_over_limit(self.failing_keys, self.keys, self.limit):
            raise TooManyFailingError(
                f"It fails on {self.failing_keys:,} or more of {self.keys:,} keys, which is more "
                f"than quarantine_limit={self.limit:g} allows"
            )


def failing_rows(keys: Sequence[str], fails: Fails, reason: str, *, limit: float) -> dict[int, str]:
    """Return the rows that a function fails on, each with the reason.

    Args:
        keys: The key of each row of the chunk. The function is known to fail on the full chunk.
        fails: Calls the function on some rows, given in ascending order.
        reason: Reason of the failure on the full chunk.
        limit: Share of the keys that may fail. The search goes on until then: a failing key among
            `n` takes about `2 log2(n)` calls.

    Returns:
        Reasons by row number. Without these rows the function has passed on every part, though
        not necessarily on all parts at once.

    Raises:
        TooManyFailingError: The function fails on more keys than `limit` allows.
        NotIsolatedError: The function fails on each of the first keys, or only on several together.
    """
    rows_of: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        rows_of.setdefault(key, []).append(row)
    search = _Search(fails, len(rows_of), limit)
    failing: list[tuple[list[str], str]] = [(list(rows_of), reason)]
    while failing:
        group, why = failing.pop()
        if len(group) == 1:
            search.blame(_within_a_key(search, rows_of[group[0]], why))
            continue
        halves = (group[: len(group) // 2], group[len(group) // 2 :])
        reasons = [search.ask(sorted(r for key in half for r in rows_of[key])) for half in halves]
        bad = [(half, why) for half, why in zip(halves, reasons, strict=True) if why is not None]
        if not bad:
            raise NotIsolatedError(
                f"it passes on both halves of {len(group)} keys and fails on them together"
            )
        failing += reversed(bad)
    return search.found


def first_failing_row(keys: Sequence[str], fails: Fails) -> int | None:
    """Return a row that a function fails on alone; None if it fails only on several together.

    Takes about twice the logarithm of the number of rows in calls.

    Args:
        keys: The key of each row of the chunk. The function is known to fail on the full chunk.
        fails: Calls the function on some rows, given in ascending order.
    """
    rows_of: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        rows_of.setdefault(key, []).append(row)
    groups = list(rows_of.values())
    while len(groups) > 1:
        half = len(groups) // 2
        first = fails(sorted(row for group in groups[:half] for row in group)) is not None
        groups = groups[:half] if first else groups[half:]
    rows = groups[0] if groups else []
    while len(rows) > 1:
        half = len(rows) // 2
        rows = rows[:half] if fails(rows[:half]) is not None else rows[half:]
    return rows[0] if rows and fails(rows) is not None else None


def _within_a_key(search: _Search, rows: list[int], reason: str) -> dict[int, str]:
    """Return the failing changes of one key; all of its changes if they fail only together."""
    failing = [(rows, reason)]
    found: dict[int, str] = {}
    while failing:
        group, why = failing.pop()
        if len(group) == 1:
            found[group[0]] = why
            continue
        halves = (group[: len(group) // 2], group[len(group) // 2 :])
        reasons = [search.ask(half) for half in halves]
        bad = [(half, why) for half, why in zip(halves, reasons, strict=True) if why is not None]
        if not bad:
            return dict.fromkeys(rows, why)
        failing += reversed(bad)
    return found
