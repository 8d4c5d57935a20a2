"""A run that stays stores little in the instance: few lines, and checks only when they change."""

from __future__ import annotations

import logging

import pytest
from dagster import AssetCheckEvaluation, AssetKey, AssetMaterialization

from datazone_dagster.dagster_glue.assets.chunk_log import ChunkLog
from datazone_dagster.dagster_glue.assets.repeated_checks import REPEAT_SECONDS, RepeatedChecks
from datazone_dagster.model.report import ChunkReport, MergeCounts

KEY = AssetKey(["orders"])


def chunk(batch: int) -> ChunkReport:
    return ChunkReport("orders", batch, batch, 9, 10, MergeCounts(inserted=3), 0.5)


def check(name: str, *, passed: bool) -> AssetCheckEvaluation:
    return AssetCheckEvaluation(check_name=name, passed=passed, asset_key=KEY)


def test_the_chunks_of_half_a_minute_have_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = [0.0]
    log = ChunkLog(logging.getLogger("run"), 30.0, lambda: now[0])
    for batch in range(1, 5):
        log.take(chunk(batch))
        now[0] += 12.0
    log.take(chunk(5))
    log.finish()
    log.finish()
    assert [one.getMessage() for one in caplog.records] == [
        "Batches 1 to 1 of 9: 10 changes, 3 rows inserted, 0 updated, 0 deleted, 0.50 s.",
        "Batches 2 to 4 of 9 in 3 chunks: 30 changes, 9 rows inserted, 0 updated, 0 deleted, "
        "1.50 s.",
        "Batches 5 to 5 of 9: 10 changes, 3 rows inserted, 0 updated, 0 deleted, 0.50 s.",
    ]


def test_each_chunk_of_another_run_has_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = ChunkLog(logging.getLogger("run"))
    for batch in range(1, 4):
        log.take(chunk(batch))
    assert len(caplog.records) == 3


def test_a_check_is_told_when_it_changes_and_while_it_fails() -> None:
    now = [0.0]
    checks = RepeatedChecks(lambda: now[0])

    def told(*, lag: bool, schema: bool = True) -> list[str]:
        now[0] += 30.0
        events = [check("lag", passed=lag), check("schema", passed=schema)]
        found = checks.changed([AssetMaterialization(KEY), *events])
        return [
            one.check_name if isinstance(one, AssetCheckEvaluation) else "rows" for one in found
        ]

    assert told(lag=True) == ["rows", "lag", "schema"]
    assert told(lag=True) == ["rows"]
    assert told(lag=False) == ["rows", "lag"]
    assert told(lag=False) == ["rows", "lag"]
    assert told(lag=True) == ["rows", "lag"]
    assert told(lag=True) == ["rows"]
    now[0] += REPEAT_SECONDS
    assert told(lag=True) == ["rows", "lag", "schema"]
