"""Requests of transforms that share a process: the change log is looked at and read once."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from datazone_dagster import Transform
from datazone_dagster.delta import remote_files, store
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.run_report import RunReport
from datazone_dagster.model.turns import Turn
from datazone_dagster.pipeline import ApplySettings, drain_once, read_dataset
from datazone_dagster.pipeline.shared_log import SharedLog, apply_in_turns
from datazone_dagster.testing import ScriptedStream
from tests.dagster_glue.conftest import SOURCE, orders_transform
from tests.store.proxy import Counts

Counted = Callable[[], AbstractContextManager[Counts]]

ROUNDS_OF_LOOKS = 5
EACH_BATCH = ApplySettings(chunk_bytes=1)


def in_turns(transforms: list[Transform], layout: Layout, looks: int = 0) -> None:
    """Apply to the head, then look some more times, as a run does that stays."""
    shared = SharedLog.of(SOURCE, layout)
    left = {one.name: looks for one in transforms}

    def run_of(one: Transform) -> Iterator[RunReport | Turn]:
        def must_end() -> bool:
            return left[one.name] < 0

        return apply_in_turns(one, shared, must_end=must_end, settings=EACH_BATCH)

    runs = {one.name: run_of(one) for one in transforms}
    with shared.reading():
        while runs:
            for name, run in list(runs.items()):
                done = next(run, None)
                if done is None:
                    del runs[name]
                elif done is Turn.IDLE:
                    left[name] -= 1


def requests(counts: Counts, kind: str) -> list[str]:
    return [
        one.path
        for one in counts.requests
        if one.method == "GET" and one.kind == kind and "_changelog" in one.path
    ]


@pytest.fixture
def stream() -> ScriptedStream:
    return ScriptedStream("orders")


@pytest.fixture(params=["small files", "large files"])
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that one request reads, and files that are read in pieces."""
    if request.param == "large files":
        monkeypatch.setattr(store, "SMALL_BYTES", 0)
        monkeypatch.setattr(remote_files, "BLOCK_BYTES", 1 << 14)


@pytest.mark.usefixtures("sizes")
def test_three_transforms_make_the_requests_of_one(
    s3_lakehouse: Layout, counted: Counted, stream: ScriptedStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    transforms = [orders_transform(name) for name in ("one", "two", "three")]

    def land(batches: int) -> None:
        for _ in range(batches):
            for _ in range(40):
                note = {"S": secrets.token_hex(500)}
                key = {"S": secrets.token_hex(8)}
                stream.put({"id": key, "status": {"S": "new"}, "note": note})
            drain_once(SOURCE, stream, s3_lakehouse)
        # What this process wrote, it would not read: a run is another one.
        monkeypatch.setattr(store, "_CACHE", remote_files.FileCache())

    land(3)
    with counted() as one:
        in_turns(transforms[:1], s3_lakehouse, ROUNDS_OF_LOOKS)
    monkeypatch.setattr(store, "_CACHE", remote_files.FileCache())
    with counted() as three:
        in_turns(transforms, s3_lakehouse, ROUNDS_OF_LOOKS)
    data = requests(one, "data file")
    assert len(set(data)) == 3
    # The first of the three has applied everything; the others have read everything.
    assert len(requests(three, "data file")) == len(data)
    land(3)
    with counted() as more:
        in_turns(transforms, s3_lakehouse, ROUNDS_OF_LOOKS)
    assert len(requests(more, "data file")) == len(data)
    assert len({row["id"] for row in read_dataset(s3_lakehouse, "three").to_pylist()}) == 240
    # Each asks once as it begins; then one look serves all.
    assert len(requests(more, "log entry")) <= len(transforms) + 1
