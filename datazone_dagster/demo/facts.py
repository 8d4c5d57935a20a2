"""Figures on the demo's screen: numbers from the Delta logs, checks from Dagster."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime

from datazone_dagster.errors import StorageError
from datazone_dagster.local import AdminClient
from datazone_dagster.local.wire_client import WireClient
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import backlog, flow_counts

SOURCE = "orders"
DATASET = "processed_orders"

_CHECKS = """
{ assetNodes { assetKey { path } assetChecksOrError { ... on AssetChecks { checks {
    name executionForLatestMaterialization { status evaluation { severity success } } } } } } }
"""


@dataclass(frozen=True, slots=True)
class DemoFacts:
    """Figures of one moment of the demo."""

    written: int
    drained: int
    applied: int
    lag_seconds: float
    rows: int
    items: int
    shards_open: int
    shards: int
    checks: tuple[tuple[str, str], ...]


def gather(
    written: int,
    client: WireClient,
    admin: AdminClient,
    layout: Layout,
    dagster_url: str,
    now: datetime,
) -> DemoFacts:
    """Read all figures."""
    counts = flow_counts(SOURCE, DATASET, layout)
    shards = admin.shards(SOURCE)
    return DemoFacts(
        written=written,
        drained=counts.landed,
        applied=counts.applied,
        lag_seconds=_lag_seconds(layout, now),
        rows=counts.rows,
        items=int(client.call("DescribeTable", TableName=SOURCE)["Table"]["ItemCount"]),
        shards_open=sum(shard["open"] for shard in shards),
        shards=len(shards),
        checks=_checks(dagster_url),
    )


def _lag_seconds(layout: Layout, now: datetime) -> float:
    waiting = backlog(SOURCE, DATASET, layout)
    oldest = waiting.oldest_unapplied_event_time
    return max(0.0, (now - oldest).total_seconds()) if oldest and waiting.pending else 0.0


def _checks(dagster_url: str) -> tuple[tuple[str, str], ...]:
    request = urllib.request.Request(
        f"{dagster_url}/graphql",
        json.dumps({"query": _CHECKS}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            nodes = json.load(answer)["data"]["assetNodes"]
    except (urllib.error.URLError, TimeoutError) as error:
        raise StorageError(f"Dagster at {dagster_url} does not answer: {error}.") from error
    return tuple(
        (f"{'/'.join(node['assetKey']['path'])} {check['name']}", _outcome(check))
        for node in nodes
        for check in (node["assetChecksOrError"] or {}).get("checks", ())
    )


def _outcome(check: dict[str, object]) -> str:
    execution = check["executionForLatestMaterialization"]
    if not isinstance(execution, dict):
        return "not yet"
    if execution["evaluation"] is None:
        return "running"
    evaluation = execution["evaluation"]
    return "passed" if evaluation["success"] else str(evaluation["severity"]).lower()
