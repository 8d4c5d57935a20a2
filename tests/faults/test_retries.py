"""Waits of a client before it retries: full jitter, within the budget of a tick."""

from __future__ import annotations

from statistics import mean

import pytest

from datazone_dagster.errors import SourceError
from datazone_dagster.local import Fault, FaultKind, LocalDynamoDB
from tests.faults.world import OrdersTable, stream_client

CALLS = 12
ATTEMPTS = 3


@pytest.mark.parametrize(
    ("kind", "first_bound_seconds"),
    [(FaultKind.THROTTLING, 1.0), (FaultKind.INTERNAL_ERROR, 0.025)],
)
def test_waits_are_full_jitter_and_few(
    server: LocalDynamoDB,
    monkeypatch: pytest.MonkeyPatch,
    kind: FaultKind,
    first_bound_seconds: float,
) -> None:
    table = OrdersTable(server.endpoint_url, seed=2)
    table.create()
    table.admin.set_faults([Fault("ListStreams", kind, times=None)])
    # The test needs clients of its own, since all retries of a client share one quota.
    client = stream_client(
        server.endpoint_url, read_timeout_seconds=8 + first_bound_seconds, max_attempts=ATTEMPTS
    )
    waits: list[float] = []
    monkeypatch.setattr("botocore.endpoint.time.sleep", waits.append)
    for _ in range(CALLS):
        with pytest.raises(SourceError):
            client.stream_arns()
    monkeypatch.undo()
    assert len(table.admin.fault_log()) == CALLS * ATTEMPTS
    for retry, bound_seconds in ((0, first_bound_seconds), (1, 2 * first_bound_seconds)):
        of_retry = waits[retry :: ATTEMPTS - 1]
        assert len(of_retry) == CALLS
        assert all(0 <= wait <= bound_seconds for wait in of_retry)
        # Twelve draws from the full range [0, bound]; near-constant waits would fail this.
        assert max(of_retry) - min(of_retry) > 0.3 * bound_seconds
        assert 0.15 < mean(of_retry) / bound_seconds < 0.85
    table.admin.clear_faults()
