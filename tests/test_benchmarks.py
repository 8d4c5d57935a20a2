"""Stages of the benchmarks: the flow still calls the functions that they measure."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from benchmarks import apply, decode, drain
from benchmarks.measure import Measured, Stages
from benchmarks.pages import Workload, generated


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
    for variant, stages in ((apply.COLLAPSED, 5), (apply.APPEND, 3), (apply.ITEMS, 2)):
        assert_measured(
            apply.child(variant, pages, shutil.copytree(lake, tmp_path / variant)), stages
        )


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
