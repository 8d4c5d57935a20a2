from __future__ import annotations

from datetime import datetime, timezone

from datazone_dagster.model.log_reach import LogReach
from datazone_dagster.model.snapshot_base import SnapshotBase
from datazone_dagster.observe.reach import reach_line, reach_metadata

AT = datetime(2030, 1, 1, tzinfo=timezone.utc)
BASE = SnapshotBase(batch=9, epoch=2, announced_at=AT, repairs=False)


def test_a_truncated_log_says_what_new_datasets_begin_with() -> None:
    line = reach_line("orders", LogReach(5, AT, BASE))
    assert "changes since 2030-01-01 00:00:00 UTC" in line
    assert "begin with the snapshot of 2030-01-01 00:00:00 UTC" in line
    assert reach_metadata(LogReach(5, AT, BASE))["new_datasets"] is True
    assert "resync orders" in reach_line("orders", LogReach(5, AT, None))
