"""The search for images finds exactly those that don't parse."""

from __future__ import annotations

import pyarrow as pa

from datazone_dagster.items.failure import DecodeFailure
from datazone_dagster.items.images import image_failures


def test_rows_are_named_once_with_the_first_reason() -> None:
    good = '{"id":{"S":"1"}}'
    changes = pa.table(
        {
            "new_image": pa.array([good, "{", None, "[1]", good, None, "{"], pa.string()),
            "old_image": pa.array([None, good, good, good, '"text"', None, "{"], pa.string()),
        }
    )
    assert image_failures(changes) == [
        DecodeFailure(1, "the new image is not a JSON object"),
        DecodeFailure(3, "the new image is not a JSON object"),
        DecodeFailure(4, "the old image is not a JSON object"),
        DecodeFailure(6, "the new image is not a JSON object"),
    ]


def test_an_empty_chunk() -> None:
    empty = pa.schema([("new_image", pa.string()), ("old_image", pa.string())]).empty_table()
    assert image_failures(empty) == []
