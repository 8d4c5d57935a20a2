"""The transform of the fault tests, and an oracle for the expected rows of its datasets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.numbering import with_optional_number
from datazone_dagster.changelog.schema import SCHEMA
from datazone_dagster.dataset.quarantine import KIND as QUARANTINE_KIND
from datazone_dagster.delta import data_files, open_table
from datazone_dagster.delta.read_rows import read_rows
from datazone_dagster.delta.store import TableStore
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.record import ChangeRecord
from datazone_dagster.pipeline import read_dataset
from datazone_dagster.sources import DynamoDBSource

SOURCE = DynamoDBSource(table_name="orders", region="eu-west-1")
HIDDEN_STATUS = "hidden"
"""Status of orders that the transform filters out, so they must leave the dataset."""

Row = tuple[str, int]


@transform(
    input_mapping={"orders": Input(Stream(source=SOURCE))},
    output_mapping={
        # A merge with deletion vectors has the most steps between which a process can die.
        "current": Output(Dataset(id="current", deletion_vectors=True)),
        "events": Output(Dataset(id="events", mode="append")),
    },
)
def flow(orders: Frame) -> dict[str, object]:
    rows = orders.select(
        "eventID",
        "dynamodb.Keys.id.S as id",
        "dynamodb.NewImage.status.S as status",
        "cast(dynamodb.NewImage.total.N as bigint) as total",
    )
    return {"current": rows.filter(f"status <> '{HIDDEN_STATUS}'"), "events": rows}


@transform(
    input_mapping={"orders": Input(Stream(source=SOURCE))},
    output_mapping={
        # A merge with deletion vectors has the most steps between which a process can die.
        "current": Output(Dataset(id="current", deletion_vectors=True)),
        "events": Output(Dataset(id="events", mode="append")),
    },
)
def wider_flow(orders: Frame) -> dict[str, object]:
    """Next version of `flow`: one more column, and a wider one."""
    rows = orders.select(
        "eventID",
        "dynamodb.Keys.id.S as id",
        "dynamodb.NewImage.status.S as status",
        "cast(dynamodb.NewImage.total.N as decimal(20, 0)) as total",
        "dynamodb.OldImage.status.S as previous_status",
    )
    return {"current": rows.filter(f"status <> '{HIDDEN_STATUS}'"), "events": rows}


@transform(
    input_mapping={"orders": Input(Stream(source=SOURCE))},
    output_mapping={"statuses": Output(Dataset(id="statuses"))},
)
def statuses(orders: Frame) -> object:
    """A second transform of the same stream."""
    return orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.status.S as status").filter(
        f"status <> '{HIDDEN_STATUS}'"
    )


def order(number: int, status: str, total: int) -> dict[str, Any]:
    return {"id": {"S": f"k{number}"}, "status": {"S": status}, "total": {"N": str(total)}}


def expected_rows(changes: Iterable[ChangeRecord]) -> dict[str, Row]:
    """Return the rows of `current` after these changes, which are in write order."""
    rows: dict[str, Row] = {}
    for change in changes:
        key = json.loads(change.keys)["id"]["S"]
        rows.pop(key, None)
        if change.new_image is not None:
            item = json.loads(change.new_image)
            if item["status"]["S"] != HIDDEN_STATUS:
                rows[key] = (item["status"]["S"], int(item["total"]["N"]))
    return rows


def rows_of_items(items: Iterable[Any]) -> dict[str, Row]:
    """Return the rows of `current` for a DynamoDB table with these items."""
    return {
        item["id"]["S"]: (item["status"]["S"], int(item["total"]["N"]))
        for item in items
        if item["status"]["S"] != HIDDEN_STATUS
    }


def current_rows(layout: Layout) -> dict[str, Row]:
    table = read_dataset(layout, "current").to_pylist()
    found = {row["id"]: (row["status"], row["total"]) for row in table}
    assert len(found) == len(table), "a key has two rows"
    return found


def event_ids(layout: Layout) -> Counter[str]:
    return Counter(read_dataset(layout, "events")["eventID"].to_pylist())


def landed(layout: Layout) -> pa.Table:
    """Return all rows of the change log."""
    log = ChangeLog(layout, SOURCE.name)
    table = open_table(log.uri, log.storage_options, "change log")
    columns = [Log.BATCH, Log.SHARD_ID, Log.EVENT_ID, Log.VERSION, Log.KEYS, Log.RAW, Log.REASON]
    schema = with_optional_number(pa.schema([SCHEMA.field(name) for name in columns]))
    if table is None:
        return schema.empty_table()
    files = sorted(data_files(table), key=lambda file: file.minimum[Log.BATCH])
    rows = [rows for _, rows in read_rows(TableStore(log.uri, log.storage_options), files, schema)]
    return pa.concat_tables([schema.empty_table(), *rows])


def landed_event_ids(layout: Layout) -> Counter[str]:
    return Counter(found for found in landed(layout)[Log.EVENT_ID].to_pylist() if found)


def quarantined_raw(layout: Layout, dataset_id: str) -> Counter[str]:
    table = open_table(layout.quarantine(dataset_id), layout.storage_options, QUARANTINE_KIND)
    return Counter() if table is None else Counter(table.to_pyarrow_table()[Log.RAW].to_pylist())


def ids(changes: Sequence[ChangeRecord]) -> Counter[str]:
    return Counter(change.event_id for change in changes)
