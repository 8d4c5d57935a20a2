"""Stages of the benchmarks: the flow still calls the functions that they measure."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import polars as pl
import pytest

from benchmarks import apply, buckets, decode, drain, scale, typed_peers
from benchmarks.measure import Measured, Stages
from benchmarks.orders import DATASET
from benchmarks.pages import Workload, generated
from benchmarks.stream import PagesStream
from datazone_dagster.model.drain_part import SetPart
from datazone_dagster.model.key_bucket import key_buckets
from datazone_dagster.model.shard_set import shard_sets


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workload = Workload(records=300, keys=100, shards=2)
    return generated(workload, tmp_path_factory.mktemp("pages"))


def assert_measured(measured: Measured, stages: int) -> None:
    assert measured.records == 300
    assert measured.cpu_seconds > 0
    assert len(measured.stages) == stages
    assert all(seconds >= 0 for seconds in measured.stages.values())


def test_a_drain_by_stage(pages: Path) -> None:
    assert_measured(drain.child(drain.RAW, pages), 8)


def test_an_apply_by_stage(pages: Path, tmp_path: Path) -> None:
    lake = tmp_path / "drained"
    apply.child(apply.DRAIN, pages, lake)
    for variant in (apply.COLLAPSED, apply.APPEND, apply.HISTORY, apply.TYPED, apply.FULL):
        measured = apply.child(variant, pages, shutil.copytree(lake, tmp_path / variant))
        assert measured.records == 300
        assert set(measured.stages) <= {stage for _, _, stage in apply.STAGES}
        assert 0.9 <= measured.staged_share <= 1.0, "what a run does is in a stage"


def test_decoding_by_stage(pages: Path) -> None:
    assert_measured(decode.child(decode.OURS, pages), 4)


def test_a_stage_alone_is_without_the_stages_within_it() -> None:
    class Flow:
        def outer(self) -> None:
            self.inner()

        def inner(self) -> None:
            started = time.thread_time()
            while time.thread_time() - started < 0.02:
                pass

    measured = Measured("flow")
    with Stages(measured) as stages:
        stages.wrap(Flow, "inner", "inner")
        stages.wrap(Flow, "outer", "alone", alone=True)
        Flow().outer()
    assert measured.stages["inner"] >= 0.02
    assert measured.stages["alone"] < 0.01


def test_the_typed_peers_make_the_same_dataset(pages: Path, tmp_path: Path) -> None:
    """What they are compared with is the same work: the rows of the typed flow."""
    lake = tmp_path / "lake"
    apply.child(apply.DRAIN, pages, lake)
    apply.child(apply.TYPED, pages, lake)
    columns = typed_peers.SCHEMA.names

    def rows(uri: Path) -> list[dict[str, object]]:
        return pl.read_delta(str(uri)).select(columns).sort("orderId").to_dicts()

    expected = rows(lake / DATASET)
    assert expected
    for name, peer in (("fold", typed_peers.fold), ("merges", typed_peers.merges)):
        assert peer(pages, str(tmp_path / name)) == 300
        assert rows(tmp_path / name) == expected


def test_two_workers_make_the_dataset_of_one(pages: Path, tmp_path: Path) -> None:
    rows = []
    for workers in (1, 2):
        lake = str(tmp_path / str(workers))
        buckets.prepare(lake, PagesStream(pages), workers)
        for one in shard_sets(workers):
            part = None if workers == 1 else SetPart(one)
            buckets.drained_part(pages, lake, part, list)
        buckets.drained_mark(lake).touch()
        for bucket in key_buckets(workers):
            buckets.applied_part(pages, lake, bucket, list)
        rows.append(buckets.rows_in(lake))
    assert rows[0] == rows[1] > 0


def test_the_simulation_of_many_shards() -> None:
    """Few calls, and children that wait for a tick only: with every page that is 6 calls a tick."""
    phases, per_tick, drains = scale.a_day(80)
    first, steady, all_end, restart = phases
    assert drains.stream.listed > 500
    assert set(per_tick) == {
        "fold",
        "listing",
        "plan",
        "poll",
        "advance",
        "is a save due",
        "report",
    }
    assert first["most_calls_of_a_tick"] == 6
    assert steady["most_calls_of_a_tick"] <= 2 * 2
    assert all_end["children"] == 80
    assert all_end["longest_wait_seconds"] <= scale.TICK_SECONDS
    assert all_end["most_calls_of_a_tick"] <= 25
    assert restart["calls"] <= 6 + 3 + 4
