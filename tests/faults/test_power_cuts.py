"""The machine loses power, and with it what was not on the disk yet: no change is lost.

The tables are in a local folder. An object store answers once it has stored a file for good.
"""

from __future__ import annotations

import pytest

from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model.layout import Layout
from datazone_dagster.process import crash_points
from tests.faults.child import start
from tests.faults.test_kills import FLOW_POINTS
from tests.faults.world import (
    assert_exactly_once,
    catch_up,
    table_with_an_ended_shard,
    write_until_killed,
)

OFTEN = [crash_points.AFTER_CHANGE_LOG_COMMIT, crash_points.AFTER_DATASET_COMMIT]


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.faults) for seed in range(2, 6))]
)
@pytest.mark.parametrize(
    "point",
    [
        point if point in OFTEN else pytest.param(point, marks=pytest.mark.faults)
        for point in FLOW_POINTS
    ],
)
def test_power_is_lost(server: LocalDynamoDB, layout: Layout, point: str, seed: int) -> None:
    table = table_with_an_ended_shard(server, seed)
    worker = start(server.endpoint_url, layout, power_cut_at=f"{point}#{2 + seed}", seed=seed)
    write_until_killed(table, worker)
    catch_up(server.endpoint_url, layout)
    assert_exactly_once(table, layout, fault="loss of power")
