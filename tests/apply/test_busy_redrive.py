"""A redrive of a dataset whose runs never rest: they make way once they were faster twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from datazone_dagster.dataset.swap_fence import PROPERTY
from datazone_dagster.model.key_bucket import KeyBucket
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, records_waiting, redrive_dataset
from datazone_dagster.process import crash_points
from tests.apply.test_bucket_modes import apply_all, flow, same_as_one_run
from tests.apply.test_buckets import MANY, land
from tests.apply.test_idle_buckets import table_of


def test_runs_make_way_for_a_redrive_that_they_were_faster_than(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(str(tmp_path))
    land(layout, MANY, [(key, "bad") for key in range(0, 60, 7)])
    apply_all(layout, 2, "soft", fails_on="bad")
    attempts: list[str] = []

    def busy(point: str) -> None:
        if point == crash_points.BEFORE_DATASET_COMMIT:
            attempts.append(point)
            crash_points.hook = None
            land(layout, [(key, f"z{len(attempts)}") for key in range(20)])
            apply_transform(flow("d", 2, "soft"), layout, bucket=KeyBucket(1, 2))
            crash_points.hook = busy

    monkeypatch.setattr(crash_points, "hook", busy)
    redrive_dataset(flow("d", 2, "soft"), "d", layout)
    monkeypatch.setattr(crash_points, "hook", None)
    assert len(attempts) == 3
    assert records_waiting("orders", "d", layout) == 0
    assert table_of(layout).properties[PROPERTY] == ""
    apply_all(layout, 2, "soft")
    assert same_as_one_run(layout, "soft")
