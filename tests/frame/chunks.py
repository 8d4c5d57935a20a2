"""Chunks of a change log, made from items."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import pyarrow as pa

from datazone_dagster.items.keys import key_column
from datazone_dagster.model.column_names import EVENT_TIME, KEY, VERSION, Log
from datazone_dagster.model.version import row_version

Image = Mapping[str, Any] | str | None
"""DynamoDB JSON of an image; a string is used as the raw text."""

EVENT_TIME_OF_ALL = datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
FIRST_SEQUENCE_NUMBER = 100_000_000_000_000_000_000


def text(image: Image) -> str | None:
    """Return the image as the service writes it, a raw one as it is."""
    return image if image is None or isinstance(image, str) else compact(image)


def compact(image: Mapping[str, Any]) -> str:
    return json.dumps(image, ensure_ascii=False, separators=(",", ":"))


def chunk(
    *changes: tuple[Image, Image],
    key: Sequence[str] = ("id",),
    user: tuple[str, str] | None = None,
) -> pa.Table:
    """Make a chunk from (new image, old image) pairs; the keys come from the images."""
    rows: list[dict[str, Any]] = []
    for position, (new, old) in enumerate(changes):
        image = next((i for i in (new, old) if isinstance(i, Mapping)), {})
        keys = {name: image[name] for name in key if name in image}
        rows.append(
            {
                Log.BATCH: 1,
                Log.SHARD_ID: "shardId-1",
                Log.VERSION: row_version(0, FIRST_SEQUENCE_NUMBER + position),
                Log.EVENT_ID: f"e{position}",
                Log.EVENT_NAME: "REMOVE" if new is None else "INSERT" if old is None else "MODIFY",
                Log.EVENT_TIME: EVENT_TIME_OF_ALL,
                Log.KEYS: compact(keys or {"id": {"S": str(position)}}),
                Log.OLD_IMAGE: text(old),
                Log.NEW_IMAGE: text(new),
                Log.SIZE_BYTES: 100 + position,
                Log.USER_TYPE: user[0] if user else None,
                Log.USER_PRINCIPAL: user[1] if user else None,
                Log.REGION: "us-west-2",
                Log.VIEW_TYPE: "NEW_AND_OLD_IMAGES",
                Log.RAW: None,
                Log.REASON: None,
            }
        )
    schema = pa.schema(
        [(name, pa.string()) for name in (Log.SHARD_ID, Log.VERSION, Log.EVENT_ID, Log.EVENT_NAME)]
        + [(name, pa.string()) for name in (Log.KEYS, Log.OLD_IMAGE, Log.NEW_IMAGE)]
        + [(name, pa.string()) for name in (Log.USER_TYPE, Log.USER_PRINCIPAL, Log.REGION)]
        + [(name, pa.string()) for name in (Log.VIEW_TYPE, Log.RAW, Log.REASON)]
        + [(Log.BATCH, pa.int64()), (Log.SIZE_BYTES, pa.int64())]
        + [(Log.EVENT_TIME, pa.timestamp("us", tz="UTC"))]
    )
    table = pa.Table.from_pylist(rows, schema=schema)
    keys_column, failures = key_column(table.column(Log.KEYS))
    assert not failures
    return (
        table.append_column(KEY, keys_column)
        .append_column(VERSION, table.column(Log.VERSION))
        .append_column(EVENT_TIME, table.column(Log.EVENT_TIME))
    )
