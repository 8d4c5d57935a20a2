"""Exports for a snapshot: start them, wait for them, open them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.scan_log import ScanLog
from datazone_dagster.errors import ExportError, SnapshotError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, utc_now
from datazone_dagster.model.snapshot_state import EXPORT_SETTLE, Phase, SnapshotState
from datazone_dagster.model.table_export import ExportClient, ExportProgress, ExportRequest
from datazone_dagster.model.table_scan import TableClient
from datazone_dagster.snapshot.export_files import SUMMARY, ExportReader
from datazone_dagster.snapshot.export_fit import windows_for
from datazone_dagster.snapshot.export_manifest import NOTHING_LANDED
from datazone_dagster.snapshot.export_table import ExportedTable
from datazone_dagster.snapshot.requests import note_exports


@dataclass(frozen=True, slots=True)
class StartedExports:
    """Exports of an announced snapshot.

    Args:
        exports: The exports, in order; none if they can't be started yet.
        not_before: Time from which on they can be started.
    """

    exports: tuple[ExportProgress, ...]
    not_before: datetime

    @property
    def are_complete(self) -> bool:
        """Whether every export is completed."""
        return bool(self.exports) and all(one.is_over for one in self.exports)

    def locations(self, bucket_uri: str | None = None) -> list[str]:
        """Return the location of each export.

        Args:
            bucket_uri: Location of the bucket; None: `s3://<bucket>`.
        """
        return [
            f"{bucket_uri or f's3://{one.bucket}'}/{one.manifest_key.removesuffix(SUMMARY)}"
            for one in self.exports
        ]


def open_exports(uris: Sequence[str], layout: Layout, client: TableClient) -> ExportedTable:
    """Open finished exports for `snapshot_source(exports=...)`; their manifests are checked.

    Args:
        uris: Location of each export, in the order of their windows: any that the lakehouse can
            read, with its storage options.
        layout: Locations of the tables.
        client: Client of the table's items.

    Raises:
        ExportError: An export is not finished, damaged, incomplete or can't be read.
    """
    return ExportedTable(client, [ExportReader(uri, layout.storage_options) for uri in uris])


def start_exports(
    source_name: str,
    layout: Layout,
    exports: ExportClient,
    *,
    bucket: str,
    prefix: str = "",
    clock: Clock = utc_now,
) -> StartedExports:
    """Start the exports that an announced snapshot waits for, once; return how far they are.

    They are started with the first call after `StartedExports.not_before`. Later calls, in any
    process, look at the same ones.

    Args:
        source_name: Name of the source; `want_exports` and `snapshot_source` come first.
        layout: Locations of the tables.
        exports: Client for exports of the table.
        bucket: S3 bucket that takes them.
        prefix: Prefix of their keys.
        clock: Source of the current time.

    Raises:
        SnapshotError: No snapshot that reads exports is announced.
        ExportError: Point-in-time recovery is off, or an export failed.
        SourceError: The service refused a call.
        StorageError: The lakehouse can't be read or written.
    """
    state = ScanLog(ChangeLog(layout, source_name)).state
    if state is None or state.export_after is None or state.reads == "table" or not state.is_active:
        raise SnapshotError(
            f"Source {source_name!r} has no announced snapshot that reads exports.",
            safe="Nothing was started: no export, no cost.",
            hint="Ask for one, and announce it: datazone-dagster import-export does both.",
        )
    not_before = state.export_after
    if not state.exports:
        if clock() < not_before:
            return StartedExports((), not_before)
        started = tuple(exports.start_export(one) for one in _requests(state, bucket, prefix))
        state = note_exports(source_name, layout, [one.arn for one in started])
    found = tuple(exports.export_progress(arn) for arn in state.exports)
    failed = [one for one in found if one.status == "FAILED"]
    if failed:
        if state.phase is Phase.ANNOUNCED:
            note_exports(source_name, layout, (), attempt=uuid.uuid4().hex)
        raise ExportError(
            f"Export {failed[0].arn} failed: {failed[0].failure}.",
            safe=NOTHING_LANDED,
            hint="Check the bucket, its region and its policy, and s3:PutObject; then start it "
            "again.",
        )
    return StartedExports(found, not_before)


def _requests(state: SnapshotState, bucket: str, prefix: str) -> list[ExportRequest]:
    assert state.export_after is not None  # announced
    if state.lost_from is None:
        return [ExportRequest(bucket, prefix, state.export_after, None, state.id)]
    windows = windows_for(state.lost_from - EXPORT_SETTLE, state.export_after)
    return [
        ExportRequest(bucket, prefix, end, start, f"{state.id}-{number}")
        for number, (start, end) in enumerate(windows)
    ]
