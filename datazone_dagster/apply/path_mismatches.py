"""Changes whose attributes have another type than a path reads, and what happens to them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.errors import TransformError
from datazone_dagster.frame.path_notes import change_ids
from datazone_dagster.frame.record_view import FieldNames, OtherTypeRead
from datazone_dagster.items.keys import shown_key
from datazone_dagster.model.column_names import KEY, VERSION, Log
from datazone_dagster.model.quarantine_policy import mismatch_reason, on_mismatch_of
from datazone_dagster.model.report import PathMismatch
from datazone_dagster.model.snapshot_state import ABSENT, SNAPSHOT_EVENT
from datazone_dagster.text import shown

NO_OLD_IMAGES = "NEW_IMAGE"
"""View type of a stream whose records have no old image."""

VIEW_TYPE_COLUMNS = (Log.VIEW_TYPE, Log.EVENT_NAME, Log.USER_PRINCIPAL)
"""Columns that tell the view type of a stream."""


@dataclass(frozen=True)
class Mismatches:
    """Changes of one attribute of another type.

    Args:
        read: The path and its attribute.
        rows: Row numbers of the changes.
        treatment: `"null"`, `"quarantine"` or `"fail"`.
    """

    read: OtherTypeRead
    rows: Sequence[int]
    treatment: str

    @property
    def reason(self) -> str:
        """Reason why the quarantine holds such a change."""
        return mismatch_reason(self.read.attribute, self.read.descriptor, self.read.path)

    @property
    def counted(self) -> PathMismatch:
        """Number of the changes, for the report."""
        read = self.read
        return PathMismatch(read.path, read.attribute, read.descriptor, len(self.rows))


def mismatches_in(
    names: FieldNames, changes: pa.Table, rows: Iterable[pa.Table], on_mismatch: str
) -> list[Mismatches]:
    """Return the changes that a path could not read, as noted while the rows were computed.

    A value that only fills columns counts if its change has rows: changes that the function
    filters out by other attributes may have any type.

    Args:
        names: Names and notes of the frames.
        changes: The changes of the chunk, with the hidden columns.
        rows: Rows of each output.
        on_mismatch: The transform's setting.
    """
    noted = names.other_types()
    if not noted:
        return []
    ids = change_ids(changes[KEY].to_pylist(), changes[VERSION].to_pylist())
    with_rows: set[int] = set()
    for table in rows:
        with_rows.update(change_ids(table[KEY].to_pylist(), table[VERSION].to_pylist()))
    keys = _key_attributes(changes)
    found = []
    for read in noted:
        counted = read.changes if read.decides else read.changes & with_rows
        numbers = [row for row, one in enumerate(ids) if one in counted]
        if numbers:
            treatment = on_mismatch_of(on_mismatch, is_key=read.outermost in keys)
            found.append(Mismatches(read, numbers, treatment))
    return found


def mismatch_error(mismatches: Mismatches, changes: pa.Table, *, safe: str) -> TransformError:
    """Return the error of a run that fails because of values of another type.

    Args:
        mismatches: The changes with such values.
        changes: The changes of the chunk.
        safe: What the error says about the state of the dataset.
    """
    read, count = mismatches.read, len(mismatches.rows)
    key = changes[KEY][mismatches.rows[0]].as_py()
    verb = "has" if count == 1 else "have"
    return TransformError(
        f"{count} of {len(changes)} changes {verb} {shown(read.attribute)} as "
        f"{shown(read.descriptor)}, which {shown(read.path)} can't read (the first has the key "
        f"{shown_key(key)}).",
        safe=safe,
        hint="Read both types, as in coalesce(dynamodb.NewImage.total.N, "
        "dynamodb.NewImage.total.S), or let such changes wait: on_mismatch='quarantine'.",
    )


def quarantined(found: Iterable[Mismatches]) -> dict[int, str]:
    """Return the row numbers of the changes for the quarantine, each with its first reason."""
    reasons: dict[int, str] = {}
    for one in found:
        if one.treatment == "quarantine":
            for row in one.rows:
                reasons.setdefault(row, one.reason)
    return reasons


def view_types_of(changes: pa.Table) -> frozenset[str]:
    """Return the view types of the streams that changes came from.

    Rows of a snapshot came from none: they have no old image whatever the stream carries.

    Args:
        changes: Changes with at least `VIEW_TYPE_COLUMNS`.
    """
    is_scanned = pc.equal(changes[Log.EVENT_NAME], SNAPSHOT_EVENT)
    is_absent = pc.equal(changes[Log.USER_PRINCIPAL], ABSENT)
    of_snapshot = pc.or_(pc.fill_null(is_scanned, False), pc.fill_null(is_absent, False))
    of_stream = changes[Log.VIEW_TYPE].filter(pc.invert(of_snapshot))
    return frozenset(of_stream.unique().drop_null().to_pylist())


def _key_attributes(changes: pa.Table) -> Mapping[str, object]:
    """Return the table's key attributes, which are the same for all of its changes."""
    first = next((text for text in changes[Log.KEYS].slice(0, 1).to_pylist()), None)
    return dict(json.loads(first)) if first else {}
