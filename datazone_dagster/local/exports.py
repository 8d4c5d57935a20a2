"""Exports of a table as of a point in time: full, or the net changes of a window.

A request starts an export; the first look after its time is up completes it. The states come from
what the table remembers since recovery was enabled.
"""

from __future__ import annotations

import math
import re
import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from datazone_dagster.local import history
from datazone_dagster.local.continuous_backups import earliest_restorable, found_table
from datazone_dagster.local.export_files import ExportFolder, shown_time
from datazone_dagster.local.keys import HASH_SPACE
from datazone_dagster.local.service import (
    Body,
    Call,
    choice,
    member,
    optional_integer,
    optional_text,
    refuse,
    text,
)
from datazone_dagster.local.service_errors import ServiceError, validation
from datazone_dagster.local.store import read_setting
from datazone_dagster.local.stream_log import table_arn
from datazone_dagster.local.tables import Table, find_table
from datazone_dagster.local.values import item_bytes

EXPORT_SECONDS = "export_seconds"
EXPORT_FAILS = "export_fails"
BUCKET = "bucket:"
"""Names of settings that the admin calls write."""

FULL, INCREMENTAL = "FULL_EXPORT", "INCREMENTAL_EXPORT"
WINDOW_SECONDS_MIN, WINDOW_SECONDS_MAX = 15 * 60, 24 * 3600
_LISTED_MAX = 25
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()=/-]{0,1024}")


class Export(msgspec.Struct):
    """Stored export."""

    arn: str
    table_number: int
    table_arn: str
    table_id: str
    kind: str
    view: str
    bucket: str
    prefix: str
    started_at: float
    due_at: float
    export_time: float
    from_time: float
    through: int
    """Position of the last write that a full export shows."""
    token: str
    status: str = "IN_PROGRESS"
    ended_at: float | None = None
    item_count: int = 0
    billed_bytes: int = 0
    failure: tuple[str, str] | None = None

    @property
    def export_id(self) -> str:
        """Id of the export, the end of its ARN."""
        return self.arn.rsplit("/", 1)[1]


def export_table(call: Call, body: Body) -> Body:
    """`ExportTableToPointInTime`."""
    refuse(body, "S3SseKmsKeyId")
    table = found_table(call, text(body, "TableArn"))
    choice(body, "ExportFormat", ("DYNAMODB_JSON",), "DYNAMODB_JSON")
    choice(body, "S3SseAlgorithm", ("AES256",), "AES256")
    kind = choice(body, "ExportType", (FULL, INCREMENTAL), FULL)
    token = optional_text(body, "ClientToken") or uuid.uuid4().hex
    bucket, prefix = text(body, "S3Bucket"), _prefix(body)
    arn = table_arn(table.region, table.name)
    known = call.db.execute("SELECT document FROM exports WHERE token = ?", (token,)).fetchone()
    if known is not None:
        export = _decoded(known)
        if (export.table_arn, export.kind, export.bucket, export.prefix) != (
            arn,
            kind,
            bucket,
            prefix,
        ):
            raise ServiceError("ExportConflictException", "The ClientToken is of another export")
        return {"ExportDescription": _described(export)}
    earliest, now = earliest_restorable(call, table), call.clock.now()
    if kind == FULL:
        from_time, view, export_time = 0.0, "", _time(body, "ExportTime", now)
        if not earliest <= export_time <= now:
            raise _invalid_time("ExportTime", earliest, now)
    else:
        from_time, export_time, view = _window(body, earliest, now)
    through = history.position_at(call, table, export_time)
    if export_time == now:
        through = history.position_at(call, table, math.inf)
    export = Export(
        arn=f"{arn}/export/{int(now * 1000):014d}-{uuid.uuid4().hex[:8]}",
        table_number=table.number,
        table_arn=arn,
        table_id=table.table_id,
        kind=kind,
        view=view,
        bucket=bucket,
        prefix=prefix,
        started_at=now,
        due_at=now + float(read_setting(call.db, EXPORT_SECONDS) or 0.0),
        export_time=export_time,
        from_time=from_time,
        through=through,
        token=token,
    )
    _start(call, export)
    call.db.execute(
        "INSERT INTO exports (arn, token, table_arn, document) VALUES (?, ?, ?, ?)",
        (export.arn, token, export.table_arn, msgspec.json.encode(export)),
    )
    answer = {"ExportDescription": _described(export)}
    _advance(call, export)
    return answer


def _window(body: Body, earliest: float, now: float) -> tuple[float, float, str]:
    specification = member(body, "IncrementalExportSpecification")
    start = _time(specification, "ExportFromTime", None)
    end = _time(specification, "ExportToTime", now)
    if not earliest <= start <= end <= now:
        raise _invalid_time("The window of the export", earliest, now)
    if not WINDOW_SECONDS_MIN <= end - start <= WINDOW_SECONDS_MAX:
        raise validation(
            "The window of an incremental export must be 15 minutes to 24 hours: ExportToTime - "
            f"ExportFromTime is {end - start:.0f} seconds"
        )
    views = ("NEW_AND_OLD_IMAGES", "NEW_IMAGE")
    return start, end, choice(specification, "ExportViewType", views, views[0])


def _time(body: Body, name: str, default: float | None) -> float:
    value: Any = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise validation(f"{name} must be a time in seconds since 1970")
    return float(value)


def _invalid_time(what: str, earliest: float, now: float) -> ServiceError:
    return ServiceError(
        "InvalidExportTimeException",
        f"{what} must be from {shown_time(earliest)} to {shown_time(now)}",
    )


def _prefix(body: Body) -> str:
    prefix = (optional_text(body, "S3Prefix") or "").strip("/")
    if not _PREFIX.fullmatch(prefix) or ".." in PurePosixPath(prefix).parts:
        raise validation(
            "S3Prefix must be 0 to 1024 letters, digits and !_.*'()=/-, without '..': here a "
            "bucket is a folder"
        )
    return prefix


def describe_export(call: Call, body: Body) -> Body:
    """`DescribeExport`."""
    arn = text(body, "ExportArn")
    row = call.db.execute("SELECT document FROM exports WHERE arn = ?", (arn,)).fetchone()
    if row is None:
        raise ServiceError("ExportNotFoundException", f"Export not found: {arn}")
    export = _decoded(row)
    _advance(call, export)
    return {"ExportDescription": _described(export)}


def list_exports(call: Call, body: Body) -> Body:
    """`ListExports`: newest first."""
    limit = optional_integer(body, "MaxResults", 1, _LISTED_MAX) or _LISTED_MAX
    token = optional_text(body, "NextToken") or str(2**62)
    if not token.isdigit() or len(token) > 19:
        raise validation("NextToken is not one of this server")
    arn = optional_text(body, "TableArn")
    rows = call.db.execute(
        "SELECT number, document FROM exports WHERE number < ? AND (? IS NULL OR table_arn = ?)"
        " ORDER BY number DESC LIMIT ?",
        (int(token), arn, arn, limit + 1),
    ).fetchall()
    exports = [_decoded(row) for row in rows[:limit]]
    for export in exports:
        _advance(call, export)
    summaries = [
        {"ExportArn": one.arn, "ExportStatus": one.status, "ExportType": one.kind}
        for one in exports
    ]
    answer: Body = {"ExportSummaries": summaries}
    if len(rows) > limit:
        answer["NextToken"] = str(rows[limit - 1]["number"])
    return answer


def _decoded(row: sqlite3.Row) -> Export:
    return msgspec.json.decode(row["document"], type=Export)


def _described(export: Export) -> Body:
    description: Body = {
        "ExportArn": export.arn,
        "ExportStatus": export.status,
        "StartTime": export.started_at,
        "ExportType": export.kind,
        "TableArn": export.table_arn,
        "TableId": export.table_id,
        "ClientToken": export.token,
        "S3Bucket": export.bucket,
        "S3SseAlgorithm": "AES256",
        "ExportFormat": "DYNAMODB_JSON",
    }
    if export.prefix:
        description["S3Prefix"] = export.prefix
    if export.kind == FULL:
        description["ExportTime"] = export.export_time
    else:
        description["IncrementalExportSpecification"] = {
            "ExportFromTime": export.from_time,
            "ExportToTime": export.export_time,
            "ExportViewType": export.view,
        }
    if export.ended_at is not None:
        description["EndTime"] = export.ended_at
    if export.failure is not None:
        description["FailureCode"], description["FailureMessage"] = export.failure
    if export.status == "COMPLETED":
        description |= {"ItemCount": export.item_count, "BilledSizeBytes": export.billed_bytes}
        description["ExportManifest"] = _folder(export, Path()).manifest_key
    return description


def _folder(export: Export, bucket: Path) -> ExportFolder:
    incremental = export.kind == INCREMENTAL
    return ExportFolder(bucket, export.prefix, export.export_id, incremental=incremental)


def _start(call: Call, export: Export) -> None:
    folder = _bucket(call, export)
    if folder is None:
        known = "LocalDynamoDB(buckets=...) or admin.set_bucket names its folder"
        _fail(call, export, "S3NoSuchBucket", f"The bucket {export.bucket} does not exist: {known}")
        return
    try:
        _folder(export, folder).start()
    except OSError as error:
        _fail(call, export, "S3AccessDenied", str(error))


def _bucket(call: Call, export: Export) -> Path | None:
    name = export.bucket
    folder = read_setting(call.db, BUCKET + name) or call.settings.buckets.get(name)
    return None if folder is None else Path(folder)


def _fail(call: Call, export: Export, code: str, message: str) -> None:
    export.status, export.ended_at = "FAILED", call.clock.now()
    export.failure = (code, message)


def _advance(call: Call, export: Export) -> None:
    """Complete an export whose time is up, and store it."""
    if export.status != "IN_PROGRESS" or call.clock.now() < export.due_at:
        return
    if read_setting(call.db, EXPORT_FAILS) == "1":
        _fail(call, export, "InternalServerError", "The export failed, as scripted")
    else:
        _complete(call, export)
    call.db.execute(
        "UPDATE exports SET document = ? WHERE arn = ?", (msgspec.json.encode(export), export.arn)
    )


def _complete(call: Call, export: Export) -> None:
    try:
        table = find_table(call, export.table_arn)
    except ServiceError:
        table = None
    bucket = _bucket(call, export)
    if table is None or table.number != export.table_number or bucket is None:
        _fail(call, export, "ResourceNotFoundException", "The table or the bucket is gone")
        return
    folder = _folder(export, bucket)
    try:
        parts = _parts(call, table, export)
        files = [folder.add(number, lines) for number, lines in enumerate(parts)]
        export.item_count = sum(file.itemCount for file in files)
        export.status, export.ended_at = "COMPLETED", call.clock.now()
        folder.finish(files, _summary(export, folder))
    except OSError as error:
        _fail(call, export, "S3AccessDenied", str(error))


def _parts(call: Call, table: Table, export: Export) -> Iterator[Iterable[bytes]]:
    """Yield the lines of each data file; a partition without items has a file, too."""
    count = call.settings.initial_shards
    for part in range(count):
        low, high = HASH_SPACE * part // count, HASH_SPACE * (part + 1) // count
        if export.kind == FULL:
            yield _items(call, table, export, low, high)
        else:
            yield _changes(call, table, export, low, high)


def _items(call: Call, table: Table, export: Export, low: int, high: int) -> Iterator[bytes]:
    for row in history.rows(call, table, export.through, low=low, high=high):
        export.billed_bytes += row["size_bytes"]
        yield b'{"Item":' + row["item"] + b"}"


def _changes(call: Call, table: Table, export: Export, low: int, high: int) -> Iterator[bytes]:
    window = (export.from_time, export.export_time)
    for old, new, at in history.net_changes(call, table, *window, low=low, high=high):
        image = new if new is not None else old
        if image is None:
            continue  # inserted and deleted within the window: the service writes nothing
        line: Body = {
            "Metadata": {"WriteTimestampMicros": {"N": str(int(at * 1_000_000))}},
            "Keys": table.schema.of(image),
        }
        if old is not None and export.view == "NEW_AND_OLD_IMAGES":
            line["OldImage"] = old
        if new is not None:
            line["NewImage"] = new
        export.billed_bytes += item_bytes(image)
        yield msgspec.json.encode(line)


def _summary(export: Export, folder: ExportFolder) -> Body:
    full = export.kind == FULL
    times = {"exportTime": export.export_time}
    if not full:
        times = {"exportFromTime": export.from_time, "exportToTime": export.export_time}
    return {
        "version": "2020-06-30" if full else "2023-08-01",
        "exportArn": export.arn,
        "startTime": shown_time(export.started_at),
        "endTime": shown_time(export.ended_at or export.due_at),
        "tableArn": export.table_arn,
        "tableId": export.table_id,
        **{name: shown_time(time) for name, time in times.items()},
        "s3Bucket": export.bucket,
        "s3Prefix": export.prefix or None,
        "s3SseAlgorithm": "AES256",
        "s3SseKmsKeyId": None,
        "manifestFilesS3Key": folder.files_key,
        "billedSizeBytes": export.billed_bytes,
        "itemCount": export.item_count,
        "outputFormat": "DYNAMODB_JSON",
        **({} if full else {"outputView": export.view, "exportType": export.kind}),
    }
