"""Numbers of batches where several drains write: a commit gives the number, not the file.

A drain that loses the race for the next number would have to write its file again under another
one, and with several drains each would lose most races. So where a change log has the property
`BY_COMMIT`, the column `batch` of a new file is null, and its add action has the number: in a tag,
and as the bounds of the column, which hold for a column without values. A file that joins others
has the numbers in its rows. The property stays: the log is read the same way with and without.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from deltalake.transaction import AddAction

from datazone_dagster.changelog.schema import bucket_of
from datazone_dagster.model.column_names import Log

BY_COMMIT = "datazone.numbered_by_commit"
"""Table property of a change log whose new files have no numbers; set by `drain="runs"`."""

NUMBER_TAG = "datazone.batch"
"""Tag of an add action: the number of the file's only batch."""


def is_numbered(file: AddAction) -> bool:
    """Return whether the rows of a file have the number of their batch."""
    return Log.BATCH in json.loads(file.stats)["minValues"]


def numbered(action: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """Return the add action of a file without numbers, with the number of its batch."""
    stats = json.loads(action["stats"])
    for bounds in ("minValues", "maxValues"):
        stats[bounds][Log.BATCH] = batch
    return {
        **action,
        "partitionValues": {Log.BUCKET: str(bucket_of(batch))},
        "stats": json.dumps(stats),
        "tags": {**(action.get("tags") or {}), NUMBER_TAG: str(batch)},
    }


def number_in(action: Mapping[str, Any]) -> int | None:
    """Return the number that an add action gives to the rows of its file; None: they have it."""
    found = (action.get("tags") or {}).get(NUMBER_TAG)
    return None if found is None else int(found)


def with_optional_number(schema: pa.Schema) -> pa.Schema:
    """Return the schema of a change log in which the number may be null."""
    at = schema.get_field_index(Log.BATCH)
    return schema.set(at, schema.field(at).with_nullable(True))
