"""Brute-force model of a history table: all changes of a key, in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from hypothesis import strategies as st

from datazone_dagster.model.version import row_version

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Change(NamedTuple):
    """One change of a key: its rows as (status, note); without rows it has a cause."""

    key: str
    number: int
    seconds: int
    rows: tuple[tuple[str, int], ...]
    cause: str | None

    @property
    def version(self) -> str:
        return row_version(1, 10**24 + self.number)

    @property
    def time(self) -> datetime:
        return START + timedelta(seconds=self.seconds)


class Interval(NamedTuple):
    key: str
    version: str
    rows: tuple[tuple[str, int], ...]
    valid_from: datetime
    valid_to: datetime | None
    closed_by: str | None


def intervals(changes: Iterable[Change], tracked: Sequence[int] = (0, 1)) -> set[Interval]:
    """Return the intervals of a set of changes; `tracked` has the indexes of tracked columns."""
    found: set[Interval] = set()
    by_key: dict[str, dict[int, Change]] = {}
    for change in changes:
        by_key.setdefault(change.key, {})[change.number] = change
    for key, numbered in by_key.items():
        runs: list[list[Change]] = []
        for _, change in sorted(numbered.items()):
            if runs and _state(runs[-1][-1], tracked) == _state(change, tracked):
                runs[-1].append(change)
            else:
                runs.append([change])
        latest: datetime | None = None
        starts: list[datetime | None] = []
        for at, run in enumerate(runs):
            if at or run[0].rows:
                latest = max(run[0].time, latest or run[0].time)
            starts.append(latest)
        for at, run in enumerate(runs):
            if not run[0].rows:
                continue
            following = runs[at + 1][0] if at + 1 < len(runs) else None
            start = starts[at]
            assert start is not None
            found.add(
                Interval(
                    key,
                    run[-1].version,
                    tuple(sorted(run[-1].rows)),
                    start,
                    starts[at + 1] if following else None,
                    following.cause if following and following.cause in {"user", "ttl"} else None,
                )
            )
    return found


def _state(change: Change, tracked: Sequence[int]) -> object:
    return sorted(tuple(row[at] for at in tracked) for row in change.rows) or None


@st.composite
def changes(draw: st.DrawFn, backwards: bool = True) -> list[Change]:
    """Draw distinct changes of a few keys; sometimes the clock goes back."""
    size = draw(st.integers(1, 9))
    numbers = draw(st.lists(st.integers(1, 40), min_size=size, max_size=size, unique=True))
    found = []
    seconds = 0
    for number in sorted(numbers):
        seconds += draw(st.sampled_from([0, 0, 1, 3, *([-2] if backwards else [])]))
        rows = draw(
            st.lists(
                st.tuples(st.sampled_from(["new", "paid"]), st.integers(0, 1)), max_size=2
            ).map(tuple)
        )
        cause = None if rows else draw(st.sampled_from(["user", "ttl", "filtered"]))
        found.append(Change(draw(st.sampled_from("ab")), number, seconds + 10, rows, cause))
    return found


@st.composite
def scripts(draw: st.DrawFn) -> tuple[list[Change], list[list[Change]]]:
    """Draw changes, and chunks with each of them at least once, in any order, some repeated."""
    known = draw(changes())
    order = draw(st.permutations(known))
    if draw(st.booleans()):
        order = sorted(order, key=lambda change: change.number)
    again = draw(st.lists(st.sampled_from(known), max_size=4))
    stream = [*order, *again]
    cuts = sorted(draw(st.sets(st.integers(1, len(stream)), max_size=4)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    return known, [list(dict.fromkeys(chunk)) for chunk in chunks if chunk]
