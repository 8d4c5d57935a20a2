"""What a dataset has to hold, computed in plain Python from the changes and from the documentation.

Nothing of the package is used here. The history is a list of changes, oldest first.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Context, Decimal
from typing import Any, NamedTuple

Item = Mapping[str, Any]
Row = Mapping[str, Any]

_EXACT = Context(prec=200)


@dataclass(frozen=True)
class Change:
    """One change: its position in the history, the canonical key, and the images."""

    number: int
    key: str
    new: Item | None
    old: Item | None
    time: datetime
    is_ttl: bool = False

    @property
    def cause(self) -> str:
        """Cause of a delete, as a column shows it."""
        return "ttl" if self.is_ttl else "user"


class Expected(NamedTuple):
    """A row of a dataset: the number of its change, its values, and the columns of its mode."""

    number: int
    values: Row
    of_mode: Row


RowsOf = Callable[[Change], Sequence[Row]]
"""Rows of the user's function for one change."""


def value(image: Item | None, *steps: str | int) -> Any:
    """Return what a path reads; a number counts from 1, or from the end if it is negative."""
    found: Any = image
    for step in steps:
        if isinstance(step, int) and isinstance(found, list):
            at = step - 1 if step > 0 else len(found) + step
            found = found[at] if 0 <= at < len(found) else None
        else:
            found = found.get(step) if isinstance(found, Mapping) else None
    return found


def plain_item(image: Item | None) -> dict[str, Any]:
    """Return the attributes of an image as `items()` shows them; NULL counts as missing."""
    return {name: plain(typed) for name, typed in (image or {}).items() if "NULL" not in typed}


def plain(typed: Mapping[str, Any]) -> Any:
    """Return a typed value in plain form: exact numbers, sets sorted."""
    ((kind, inner),) = typed.items()
    if kind == "N":
        return Decimal(inner)
    if kind == "NULL":
        return None
    if kind in {"SS", "BS"}:
        return sorted(inner)
    if kind == "NS":
        return sorted(map(Decimal, inner))
    if kind == "L":
        return [plain(one) for one in inner]
    if kind == "M":
        return {name: plain(one) for name, one in inner.items()}
    return inner


def in_text(item: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of an item as texts, which are equal for equal numbers and bytes."""
    return {name: _text(found) for name, found in item.items()}


def _text(found: Any) -> str:
    if isinstance(found, list):
        return f"[{','.join(map(_text, found))}]"
    if isinstance(found, dict):
        return f"{{{','.join(f'{name}:{_text(one)}' for name, one in sorted(found.items()))}}}"
    if isinstance(found, bytes):
        return repr(base64.b64encode(found).decode())
    if isinstance(found, (int, Decimal)) and not isinstance(found, bool):
        return str(_EXACT.normalize(Decimal(found)) if found else 0)
    return repr(found)


def shown(rows: Iterable[Row]) -> list[str]:
    """Return rows in a form that is equal for equal rows, in whatever order."""
    return sorted(json.dumps(row, sort_keys=True, default=str) for row in rows)


def appended(changes: Sequence[Change], rows_of: RowsOf) -> list[Expected]:
    """Return the rows of append mode: those of every change, deletes too."""
    return [Expected(one.number, row, {}) for one in changes for row in rows_of(one)]


def merged(changes: Sequence[Change], rows_of: RowsOf) -> list[Expected]:
    """Return the rows of merge mode: those of the last change of each key that is no delete."""
    last = {one.key: one for one in changes}
    return appended([one for one in last.values() if one.new is not None], rows_of)


def marked(changes: Sequence[Change], rows_of: RowsOf) -> list[Expected]:
    """Return the rows of merge mode with soft deletes: the last ones of a deleted key stay."""
    found = []
    for of_key in _by_key(changes):
        last = of_key[-1]
        shows = next((one for one in reversed(of_key) if one.new is not None), None)
        is_deleted = last.new is None
        marks = {"_dz_deleted": is_deleted, "_dz_delete_cause": last.cause if is_deleted else None}
        if shows is not None:
            found += [Expected(last.number, row, marks) for row in rows_of(shows)]
    return found


def intervals(changes: Sequence[Change], rows_of: RowsOf) -> list[Expected]:
    """Return the rows of history mode: one interval per run of changes with equal rows."""
    found = []
    for of_key in _by_key(changes):
        runs: list[list[Change]] = []
        states: list[list[str]] = []
        for one in of_key:
            state = [] if one.new is None else shown(rows_of(one))
            if states and states[-1] == state:
                runs[-1].append(one)
            else:
                runs.append([one])
                states.append(state)
        for at, run in enumerate(runs):
            ends = runs[at + 1][0].time if at + 1 < len(runs) else None
            of_mode = {
                "_dz_valid_from": run[0].time,
                "_dz_valid_to": ends,
                "_dz_is_current": ends is None,
            }
            rows = rows_of(run[-1]) if states[at] else []
            found += [Expected(run[-1].number, row, of_mode) for row in rows]
    return found


@dataclass
class Admission:
    """Which changes a dataset has taken, and which wait in its quarantine.

    Args:
        in_order: Whether a change waits behind an earlier one of its key, as in append mode.
        is_refused: Whether a change is refused as things are now.
    """

    in_order: bool
    is_refused: Callable[[Change], bool]
    taken: list[Change] = field(default_factory=list)
    waiting: list[Change] = field(default_factory=list)

    def apply(self, changes: Iterable[Change]) -> list[Change]:
        """Take those changes that are not known yet, oldest first; return those that are taken."""
        known = {one.number for one in [*self.taken, *self.waiting]}
        return self._take(one for one in changes if one.number not in known)

    def redrive(self) -> list[Change]:
        """Try those that wait once more; return those that are taken."""
        waiting, self.waiting = self.waiting, []
        return self._take(waiting)

    def rebuild(self) -> list[Change]:
        """Begin again with all changes; return those that are taken."""
        changes = sorted([*self.taken, *self.waiting], key=lambda one: one.number)
        self.taken, self.waiting = [], []
        return self._take(changes)

    def _take(self, changes: Iterable[Change]) -> list[Change]:
        taken: list[Change] = []
        for change in changes:
            waits = self.in_order and change.key in {one.key for one in self.waiting}
            (self.waiting if waits or self.is_refused(change) else taken).append(change)
        self.taken = sorted([*self.taken, *taken], key=lambda one: one.number)
        return taken


def _by_key(changes: Sequence[Change]) -> list[list[Change]]:
    keys: dict[str, list[Change]] = {}
    for one in changes:
        keys.setdefault(one.key, []).append(one)
    return list(keys.values())
