"""Positions of the buckets of a dataset, and which commits concern which bucket.

Each bucket has an application id of its own. Its transaction version says through which batch the
changes of its keys are in the table, so a position stays true when the number of buckets changes.
"""

from __future__ import annotations

from datazone_dagster.dataset.properties import apply_app_id, erase_app_id
from datazone_dagster.dataset.restored import version_of_rows
from datazone_dagster.delta.rebase import Independent
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.model.key_bucket import (
    WHOLE,
    KeyBucket,
    applied_through,
    bucket_named,
)

_MAINTENANCE = "maintain/"


def bucket_of_app_id(app_id: str, source: str) -> KeyBucket | None:
    """Return the bucket whose position an application id has; None: it has none of this source."""
    whole = apply_app_id(source)
    if app_id == whole:
        return WHOLE
    prefix = f"{whole}/"
    return bucket_named(app_id.removeprefix(prefix)) if app_id.startswith(prefix) else None


def apply_app_ids(table: Snapshot, source: str) -> dict[str, KeyBucket]:
    """Return the application ids of positions that a table has, each with its bucket."""
    found = ((app_id, bucket_of_app_id(app_id, source)) for app_id in table.transactions)
    return {app_id: bucket for app_id, bucket in found if bucket is not None}


def other_sources(table: Snapshot, source: str) -> list[str]:
    """Return the names of other sources that a table has positions of."""
    begin = apply_app_id("")
    names = {app_id.split("/")[1] for app_id in table.transactions if app_id.startswith(begin)}
    return sorted(names - {source})


def applied_batches(table: Snapshot, source: str) -> dict[KeyBucket, int]:
    """Return the last batch whose changes are in a table, by bucket of any number of buckets.

    Raises:
        StorageError: The table was restored, and the position of the rows is not known.
    """
    return {
        of: version_of_rows(table, source, app_id).transaction(app_id)
        for app_id, of in apply_app_ids(table, source).items()
    }


def position_of_bucket(table: Snapshot, source: str, bucket: KeyBucket) -> int:
    """Return the last batch whose changes of a bucket are in a table; 0: none.

    Raises:
        StorageError: As in `applied_batches`.
    """
    return applied_through(applied_batches(table, source), bucket)


def restored_positions(table: Snapshot, source: str) -> dict[str, int]:
    """Return the positions that a RESTORE took back and that no commit has said since.

    Only of tables with several: the next commit of a run says the only one by itself.

    Raises:
        StorageError: As in `applied_batches`.
    """
    app_ids = apply_app_ids(table, source)
    if len(app_ids) == 1:
        return {}
    rows = {app_id: version_of_rows(table, source, app_id) for app_id in app_ids}
    return {app_id: at.transaction(app_id) for app_id, at in rows.items() if at is not table}


def marks_of(table: Snapshot, source: str, bucket: KeyBucket = WHOLE) -> dict[str, int]:
    """Return the transactions that a run, redrive or erasure of the same keys changes."""
    marks = {
        app_id for app_id, of in apply_app_ids(table, source).items() if of.overlaps(bucket)
    } | {f"redrive/{source}", erase_app_id(source)}
    return {mark: table.transaction(mark) for mark in sorted(marks)}


def independent_of(source: str, *buckets: KeyBucket) -> Independent | None:
    """Return which application ids change other keys; None for all keys: there are none."""
    if any(one.is_whole for one in buckets):
        return None

    def independent(app_id: str) -> bool:
        of = bucket_of_app_id(app_id, source)
        if of is None:
            return app_id.startswith(_MAINTENANCE)
        return not any(of.overlaps(one) for one in buckets)

    return independent
