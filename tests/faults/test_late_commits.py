"""Commits come to the object store after their writer has given them up: none is lost or doubled.

The writer can't know whether such a commit will come. It keeps the files that it names, reads the
log again, and what comes later than the next commit of that number is refused by the store.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import suppress

import pytest

from datazone_dagster.errors import StorageError
from datazone_dagster.model.layout import Layout
from datazone_dagster.process import crash_points
from datazone_dagster.testing import ScriptedStream
from tests.faults.object_store import BUCKET, FaultyStore, faulty_store
from tests.faults.test_storage_faults import assert_exactly_once, tick, write

BEFORE, AFTER = "before the next tick", "after the next tick"
TABLES = ["_changelog/", "_checkpoints/", "_tombstones/", "current/", "events/", ""]


@pytest.fixture(scope="module")
def store() -> Iterator[FaultyStore]:
    with faulty_store() as store:
        yield store


@pytest.mark.parametrize(
    "table_path",
    [*TABLES[:1], *(pytest.param(one, marks=pytest.mark.faults) for one in TABLES[1:])],
)
@pytest.mark.parametrize(
    "moment",
    [
        BEFORE,
        crash_points.AFTER_READ,
        pytest.param(crash_points.AFTER_QUARANTINE, marks=pytest.mark.faults),
        pytest.param(crash_points.BEFORE_DATASET_COMMIT, marks=pytest.mark.faults),
        AFTER,
    ],
)
def test_commits_that_come_late(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch, table_path: str, moment: str
) -> None:
    layout = Layout(f"s3://{BUCKET}/{uuid.uuid4().hex}", store.options)
    stream = ScriptedStream(shards=2)
    write(stream, 0, 10)
    tick(stream, layout)
    struck = 0
    for number in range(1, 4):
        write(stream, 10 * number, 10)
        store.script(table_path, "late", every=1)
        with suppress(StorageError):
            tick(stream, layout)
        struck += store.heal()

        def reach(point: str) -> None:
            if point == moment:
                store.deliver()

        write(stream, 10 * number + 5, 5)
        reach(BEFORE)
        with monkeypatch.context() as patch:
            patch.setattr(crash_points, "hook", reach)
            with suppress(StorageError):
                tick(stream, layout)
        store.deliver()
    # Positions alone, and tombstones, are not written with every batch.
    assert struck or table_path in ("_checkpoints/", "_tombstones/")
    assert_exactly_once(stream, layout, fault="commit that comes late", injected=struck, ticks=2)
