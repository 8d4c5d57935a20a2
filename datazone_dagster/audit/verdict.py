"""The verdict on one key: is its row what the function makes of its item. Pure.

A key is looked at in this order: the head of the change log, the item, the time of the look, and,
once the drain has passed that time and the dataset has applied it, the rows of the dataset with
their position. If no change of the key landed between that head and that position, then none was
written between its last landed change and the look: the rows must be those of the item. If one
landed, the item that was looked at may be older than the rows. Then the rows must be those of the
newest landed change, or the key is looked at once more.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class Fingerprint(NamedTuple):
    """Number of rows of a key, and a hash of what they show; equal rows have equal ones."""

    rows: int = 0
    hash: int = 0


NO_ROWS = Fingerprint()


class Verdict(enum.Enum):
    """What a second look has shown."""

    SAME = "same"
    MISSING = "missing"
    EXTRA = "extra"
    STALE = "stale"
    AGAIN = "again"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Look:
    """A key, looked at.

    Args:
        expected: Rows that the function makes of the item; none if there is no item. None: the
            function or the contract refuses the item.
        found: Rows of the dataset.
        moved: Whether a change of the key landed between the look and the rows.
        landed: Rows that the newest of these changes leads to; None: unknown.
    """

    expected: Fingerprint | None
    found: Fingerprint
    moved: bool = False
    landed: Fingerprint | None = None


def verdict(look: Look) -> Verdict:
    """Return the verdict on a key."""
    if look.expected is None:
        return Verdict.REFUSED
    if look.expected == look.found:
        return Verdict.SAME
    if look.moved:
        return Verdict.SAME if look.landed == look.found else Verdict.AGAIN
    if not look.found.rows:
        return Verdict.MISSING
    return Verdict.STALE if look.expected.rows else Verdict.EXTRA
