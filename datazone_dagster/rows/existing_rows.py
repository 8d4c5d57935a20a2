"""Reading the existing rows of given keys in full, without decoding other rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from datazone_dagster.delta import guarded
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.rows.engine import MergeTarget
from datazone_dagster.rows.locate import CHANGE_ROW, FILE, POSITION, existing_rows, locate


@dataclass(frozen=True)
class ExistingRows:
    """Locations of the existing rows of some keys.

    Args:
        locations: Key, version and other requested columns of each row, with the index of its
            file and its position there.
        snapshot: Snapshot in which the rows were found; the indexes count its files.
    """

    locations: pa.Table
    snapshot: Snapshot


def find_rows(
    target: MergeTarget, keys: pa.ChunkedArray, columns: Sequence[str] = (KEY, VERSION)
) -> ExistingRows:
    """Find the rows of these keys, reading a few columns only.

    The keys given and found are in memory, the files are not.

    Args:
        target: The table.
        keys: Keys of the rows to find.
        columns: Columns to read, the key among them; no partition columns.
    """
    keys = pa.chunked_array([keys.unique()])
    schema = pa.schema([target.schema.field(name) for name in columns])
    with guarded(target.uri, f"Reading {target.title}"):
        snapshot = target.table.at
        found = locate(snapshot, keys, bucket=target.bucket)
        if set(columns) <= {KEY, VERSION}:
            values = {KEY: keys.take(found[CHANGE_ROW]), VERSION: found[VERSION]}
            rows = pa.table(
                [*(values[name] for name in columns), found[FILE], found[POSITION]],
                names=[*columns, FILE, POSITION],
            )
        else:
            rows = existing_rows(snapshot, found, schema).select([*columns, FILE, POSITION])
    return ExistingRows(rows, snapshot)


def read_existing(target: MergeTarget, existing: ExistingRows, wanted: pa.Table) -> pa.Table:
    """Read the rows with the given keys and versions, in the table's schema.

    Only row groups that contain one of them are decoded, a few thousand rows at a time.

    Args:
        target: The table, at the version at which `existing` was found.
        existing: Locations of the rows.
        wanted: Key and version of the rows to read.
    """
    columns = [KEY, VERSION]
    hits = existing.locations.join(wanted.select(columns), keys=columns, join_type="left semi")
    return read_located(target, existing, hits).select(target.schema.names)


def read_located(target: MergeTarget, existing: ExistingRows, locations: pa.Table) -> pa.Table:
    """Read the rows at some of the locations, each with its file and position in front.

    Args:
        target: The table, at the version at which `existing` was found.
        existing: Locations of the rows.
        locations: Those of its locations to read.
    """
    with guarded(target.uri, f"Reading {target.title}"):
        return existing_rows(existing.snapshot, locations, target.schema)
