"""Refusal of results that combine changes of several keys, in the modes that hold rows by key."""

from __future__ import annotations

import json

import pyarrow as pa

from datazone_dagster.api import Dataset
from datazone_dagster.errors import ResultError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.query_session import Unread
from datazone_dagster.model.column_names import Log


def check_one_key(dataset: Dataset, frame: Frame, changes: pa.Table | Unread) -> None:
    """Check that each row of a frame comes from changes of one key: see `SqlChecks.check`.

    Raises:
        ResultError: The SQL combines changes of several keys.
    """
    keys = frozenset[str]()
    for mixing in frame.mixing:
        if not mixing.keeps_apart(keys):
            keys = keys or _key_attributes(changes)
        if not mixing.keeps_apart(keys):
            raise ResultError(
                f"Dataset {dataset.id!r}: in {mixing.call}, {mixing.operation} combines changes "
                "of several keys. The function sees one chunk at a time, so the result would be "
                f"that of each chunk, and mode={dataset.mode!r} replaces the rows of a key.",
                safe="Nothing was written.",
                hint="Return a row per item here, and aggregate in an asset downstream of the "
                "dataset, which reads all of its rows. Per item it is fine: group or partition "
                "by _dz_key or by all attributes of the key.",
            )


def _key_attributes(changes: pa.Table | Unread) -> frozenset[str]:
    """Return the names of the table's key attributes, which are the same for all changes."""
    if isinstance(changes, Unread):
        changes = changes.read(frozenset({Log.KEYS}))
    first = changes[Log.KEYS].slice(0, 1).to_pylist()
    return frozenset(json.loads(first[0])) if first else frozenset()
