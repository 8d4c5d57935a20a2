"""What the demo's screen shows: numbers from the Delta logs, checks from Dagster."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime

from datazone_dagster.delta import data_files, open_table
from datazone_dagster.delta.transaction_log import read_snapshot
from datazone_dagster.errors import StorageError
from datazone_dagster.local import AdminClient
from datazone_dagster.local.wire_client import WireClient
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import backlog

SOURCE = "orders"
DATASET = "processed_orders"

_CHECKS = """
{ assetNodes { assetKey { path } assetChecksOrError { ... on AssetChecks { checks {
    name executionForLatestMaterialization { status evaluation { severity success } } } } } } }
"""


@dataclass(frozen=True, slots=True)
class DemoFacts:
    """One moment of the demo."""

    written: int
    landed: int
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
    """Read everything anew."""
    landed, applied, lag_seconds = _landed_and_applied(layout, now)
    shards = admin.shards(SOURCE)
    return DemoFacts(
        written=written,
        landed=landed,
        applied=applied,
        lag_seconds=lag_seconds,
        rows=_rows(layout),
        items=int(client.call("DescribeTable", TableName=SOURCE)["Table"]["ItemCount"]),
        shards_open=sum(shard["open"] for shard in shards),
        shards=len(shards),
        checks=_checks(dagster_url),
    )


def _landed_and_applied(layout: Layout, now: datetime) -> tuple[int, int, float]:
    log = open_table(layout.change_log(SOURCE), layout.storage_options, "change log")
    if log is None:
        return 0, 0, 0.0
    waiting = backlog(SOURCE, DATASET, layout)
    files = data_files(log)
    applied = sum(file.num_records for file in files if file.maximum[Log.BATCH] <= waiting.position)
    oldest = waiting.oldest_unapplied_event_time
    lag_seconds = max(0.0, (now - oldest).total_seconds()) if oldest and waiting.pending else 0.0
    return sum(file.num_records for file in files), applied, lag_seconds


def _rows(layout: Layout) -> int:
    table = open_table(layout.dataset(DATASET), layout.storage_options, "dataset")
    return 0 if table is None else read_snapshot(table, layout.storage_options).live_rows


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
