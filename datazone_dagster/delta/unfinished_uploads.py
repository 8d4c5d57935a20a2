"""Multipart uploads of processes that were killed: aborted a day later, on S3.

Files up to `remote_files.SINGLE_PUT_BYTES` are uploaded by one request, and need none of this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from datazone_dagster.delta.store_access import s3_folder
from datazone_dagster.model.report import MaintenanceReport
from datazone_dagster.model.store_uploads import AbortedUploads, AbortUploads

IN_FLIGHT = timedelta(hours=24)
"""Age up to which an upload may belong to a process that is at work."""


class _Aborter:
    """The one place that may know botocore is further up: it is set from there."""

    abort: AbortUploads | None = None


def abort_uploads_with(abort: AbortUploads) -> None:
    """Set who lists and aborts uploads for this process."""
    _Aborter.abort = abort


def abort_unfinished(
    root: str, storage_options: Mapping[str, str], now: datetime, tables: Iterable[str]
) -> AbortedUploads:
    """Abort the uploads of a lakehouse's tables that began more than a day ago.

    Other stores than S3 forget them by themselves, or by a rule of the bucket.

    Args:
        root: Root of the lakehouse.
        storage_options: Options of its store.
        now: The current time.
        tables: Names of the folders below the root that are the lakehouse's.

    Raises:
        StorageError: There are no credentials, or they can't be renewed.
    """
    folder = s3_folder(root, storage_options, tables)
    if folder is None or _Aborter.abort is None:
        return AbortedUploads()
    return _Aborter.abort(folder, now - IN_FLIGHT)


def with_aborted(
    report: MaintenanceReport,
    root: str,
    storage_options: Mapping[str, str],
    now: datetime,
    tables: Iterable[str],
) -> MaintenanceReport:
    """Abort the uploads as `abort_unfinished`, and return the report with what was done."""
    uploads = abort_unfinished(root, storage_options, now, tables)
    return replace(report, uploads_aborted=uploads.count, uploads_refused=uploads.refused)
