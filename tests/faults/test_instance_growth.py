"""What ten minutes of constant traffic leave in a Dagster instance: runs, and bytes."""

from __future__ import annotations

import pytest

from benchmarks import latency
from benchmarks.instance_storage import UnavailableError

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

MINUTES = 10.0


@pytest.mark.parametrize(("storage", "most_bytes"), [("sqlite", 2e6), ("postgres", 1e6)])
def test_ten_minutes_of_traffic(storage: str, most_bytes: float) -> None:
    try:
        result = latency.measured(10.0, MINUTES, storage)
    except UnavailableError as reason:
        pytest.skip(str(reason))
    assert result.unread == 0
    assert result.runs <= 3
    assert result.growth_bytes < most_bytes
    assert result.p50_seconds < 3
    assert result.p95_seconds < 8
