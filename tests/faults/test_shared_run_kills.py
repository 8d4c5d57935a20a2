"""A run of two transforms is killed in the middle: each goes on from its own position."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, backlog, drain_once, read_dataset
from datazone_dagster.process import crash_points
from tests.faults.child import start
from tests.faults.orders import SOURCE, statuses
from tests.faults.world import OrdersTable, assert_exactly_once, catch_up, stream_client

pytestmark = pytest.mark.faults

DEADLINE_SECONDS = 60


@pytest.mark.parametrize("nth", [4, 5, 6])
@pytest.mark.parametrize(
    "point",
    [
        crash_points.BEFORE_DATASET_COMMIT,
        crash_points.BEFORE_LOG_ENTRY,
        crash_points.AFTER_LOG_ENTRY,
        crash_points.AFTER_DATASET_COMMIT,
    ],
)
def test_a_shared_run_is_killed_at_a_named_point(
    server: LocalDynamoDB, layout: Layout, tmp_path: Path, point: str, nth: int
) -> None:
    """Each turn commits to two datasets of one transform, then to one of the other."""
    table = OrdersTable(server.endpoint_url, seed=nth)
    table.create()
    client = stream_client(server.endpoint_url)
    for _ in range(6):
        table.write(20)
        drain_once(SOURCE, client, layout)
    home = str(tmp_path / "home")
    worker = start(
        server.endpoint_url, layout, role="shared run", home=home, crash_at=f"{point}#{nth}"
    )
    worker.join(DEADLINE_SECONDS)
    assert worker.exitcode == -signal.SIGKILL
    positions = [backlog(SOURCE.name, name, layout).position for name in ("current", "statuses")]
    assert 0 < min(positions) <= max(positions) < 6, "both had turns"
    assert max(positions) - min(positions) <= 1, "they took turns"

    table.write(20)
    catch_up(server.endpoint_url, layout)
    apply_transform(statuses, layout)
    assert_exactly_once(table, layout, fault=f"SIGKILL {point} in a run of two transforms")
    found = {row["id"]: row["status"] for row in read_dataset(layout, "statuses").to_pylist()}
    assert found == {key: status for key, (status, _) in table.rows().items()}
