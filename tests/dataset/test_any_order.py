"""Merge mode with hard deletes: any order, repetition and crashes give the same table."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datazone_dagster.process import crash_points
from datazone_dagster.testing import Crash, crash_at
from tests.dataset.history_model import Change, scripts
from tests.dataset.test_modes import ON_DISK, Table

Row = tuple[str, str, str, int]


def current(changes: Iterable[Change]) -> list[Row]:
    """Return the rows of the newest change of each key; none if that change removed the key."""
    newest: dict[str, Change] = {}
    for change in sorted(changes, key=lambda change: change.number):
        newest[change.key] = change
    return sorted(
        (change.key, change.version, status, note)
        for change in newest.values()
        if change.cause not in {"user", "ttl"}
        for status, note in change.rows
    )


def rows(table: Table) -> list[Row]:
    return sorted(
        (str(row["_dz_key"]), str(row["_dz_version"]), str(row["status"]), int(str(row["note"])))
        for row in table.rows()
    )


PLACED = Change("a", 1, 1, (("placed", 1),), None)
DELETED = Change("a", 2, 2, (), "user")


@ON_DISK
@given(script=scripts(), deaths=st.lists(st.booleans(), min_size=9, max_size=9))
@example(script=([PLACED, DELETED], [[DELETED], [PLACED]]), deaths=[False] * 9)
@example(script=([PLACED, DELETED], [[PLACED], [DELETED], [PLACED]]), deaths=[True] * 9)
def test_the_newest_change_of_a_key_counts_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory,
    script: tuple[list[Change], list[list[Change]]],
    deaths: list[bool],
) -> None:
    table = Table(tmp_path_factory.mktemp("lakehouse"))
    seen: list[Change] = []
    for chunk, dies in zip(script[1], deaths, strict=False):
        if dies:
            with crash_at(crash_points.AFTER_TOMBSTONES), pytest.raises(Crash):
                table.apply(chunk)
        table.apply(chunk)
        seen += chunk
        assert rows(table) == current(seen)
