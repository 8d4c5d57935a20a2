"""Manifests of an export: what belongs to it, of which table and time, is it whole. Pure.

Format: developer guide, "DynamoDB table export output format". Data files of incremental exports
share one folder, so only the manifest tells which files belong to an export. A row may land only
after every check here has passed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum

import msgspec

from datazone_dagster.errors import ExportError
from datazone_dagster.text import shown

ROOT = "AWSDynamoDB/"
"""Folder that the service puts every export into, below the prefix of the request."""

NOTHING_LANDED = "No row of it landed."
VIEWS = ("NEW_AND_OLD_IMAGES", "NEW_IMAGE")
_HEX_MD5 = re.compile(r"[0-9a-f]{32}")
_ONE_PART = "-1"
_AGAIN = "Copy the export again from S3, or start a new one."


class ExportKind(str, Enum):
    """Kind of an export, by its name in the service."""

    FULL = "FULL_EXPORT"
    INCREMENTAL = "INCREMENTAL_EXPORT"


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """Content of `manifest-summary.json`.

    Args:
        export_arn: ARN of the export.
        table_arn: ARN of the table.
        table_id: Id of the table, which a re-created table does not keep.
        kind: Full or incremental.
        from_time: First moment of an incremental export; None for a full one.
        to_time: Time of which a full export shows the state, or end of the window of an
            incremental one, exclusive.
        view: Images of an incremental export, one of `VIEWS`; empty for a full one.
        item_count: Number of items, or of net changes, in all files.
        billed_bytes: Size that AWS bills, in bytes.
        files_key: S3 key of `manifest-files.json`.
        encryption: Encryption of the files, `AES256` or `KMS`.
    """

    export_arn: str
    table_arn: str
    table_id: str
    kind: ExportKind
    from_time: datetime | None
    to_time: datetime
    view: str
    item_count: int
    billed_bytes: int
    files_key: str
    encryption: str

    @property
    def name(self) -> str:
        """Id of the export with its kind and times, for error texts."""
        export_id = self.export_arn.rpartition("/")[2]
        if self.from_time is None:
            return f"full export {export_id} (as of {shown_time(self.to_time)})"
        window = f"{shown_time(self.from_time)} to {shown_time(self.to_time)}"
        return f"incremental export {export_id} ({window})"


@dataclass(frozen=True, slots=True)
class ExportFile:
    """One line of `manifest-files.json`.

    Args:
        key: S3 key of the data file.
        item_count: Number of its lines.
        md5: Digest of its bytes.
        etag: Entity tag in S3; empty if the manifest has none.
    """

    key: str
    item_count: int
    md5: bytes
    etag: str = ""


@dataclass(frozen=True, slots=True)
class ExportManifest:
    """Checked manifests of one export.

    Args:
        summary: Summary of the export.
        files: Data files, those without items included.
        unverified: Names of manifests whose checksum is missing or of an unknown form.
    """

    summary: ExportSummary
    files: tuple[ExportFile, ...]
    unverified: tuple[str, ...] = ()


class _Summary(msgspec.Struct, rename="camel"):
    export_arn: str
    table_arn: str
    table_id: str
    manifest_files_s3_key: str = msgspec.field(name="manifestFilesS3Key")
    item_count: int
    output_format: str
    billed_size_bytes: int = 0
    s3_sse_algorithm: str | None = msgspec.field(name="s3SseAlgorithm", default=None)
    export_type: str = ExportKind.FULL.value
    export_time: datetime | None = None
    export_from_time: datetime | None = None
    export_to_time: datetime | None = None
    output_view: str = ""


class _File(msgspec.Struct, rename="camel"):
    item_count: int
    md5_checksum: str = msgspec.field(name="md5Checksum")
    data_file_s3_key: str = msgspec.field(name="dataFileS3Key")
    etag: str = ""


def parse_summary(body: bytes, uri: str) -> ExportSummary:
    """Return the summary of an export.

    Args:
        body: Content of `manifest-summary.json`.
        uri: Location of the export, for error texts.

    Raises:
        ExportError: The content is not the summary of an export that can be read.
    """
    try:
        found = msgspec.json.decode(body, type=_Summary)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(uri, "manifest-summary.json", error) from None
    if found.output_format != "DYNAMODB_JSON":
        raise ExportError(
            f"The export at {uri} has the format {shown(found.output_format, 40)}.",
            safe=NOTHING_LANDED,
            hint="Export the table again with ExportFormat=DYNAMODB_JSON.",
        )
    if found.export_type not in list(ExportKind):
        raise _not_an_export(uri, f"its type is {shown(found.export_type, 40)}")
    kind = ExportKind(found.export_type)
    if kind is ExportKind.FULL:
        from_time, to_time, view = None, found.export_time, ""
    else:
        from_time, to_time, view = found.export_from_time, found.export_to_time, found.output_view
        if view not in VIEWS:
            raise _not_an_export(uri, f"its view type is {shown(view, 40) or 'not given'}")
        if from_time is None or to_time is None or from_time >= to_time:
            raise _not_an_export(uri, "its window has no start before its end")
    if to_time is None:
        raise _not_an_export(uri, "it has no exportTime")
    if found.item_count < 0:
        raise _not_an_export(uri, f"its itemCount is {found.item_count}")
    return ExportSummary(
        export_arn=found.export_arn,
        table_arn=found.table_arn,
        table_id=found.table_id,
        kind=kind,
        from_time=None if from_time is None else _utc(from_time),
        to_time=_utc(to_time),
        view=view,
        item_count=found.item_count,
        billed_bytes=found.billed_size_bytes,
        files_key=found.manifest_files_s3_key,
        encryption=found.s3_sse_algorithm or "",
    )


def parse_files(body: bytes, uri: str) -> tuple[ExportFile, ...]:
    """Return the data files of an export.

    Args:
        body: Content of `manifest-files.json`: one JSON object per line.
        uri: Location of the export, for error texts.

    Raises:
        ExportError: A line is not one of a manifest.
    """
    files = []
    for number, line in enumerate(body.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found = msgspec.json.decode(line, type=_File)
            md5 = base64.b64decode(found.md5_checksum, validate=True)
            if len(md5) != hashlib.md5(usedforsecurity=False).digest_size or found.item_count < 0:
                raise ValueError("md5Checksum or itemCount is out of range")
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise _unreadable(uri, f"manifest-files.json, line {number}", error) from None
        files.append(ExportFile(found.data_file_s3_key, found.item_count, md5, found.etag))
    return tuple(files)


def checked(
    summary: ExportSummary, files: Sequence[ExportFile], uri: str, unverified: Sequence[str] = ()
) -> ExportManifest:
    """Return the manifest of an export whose files are complete.

    Raises:
        ExportError: The files do not add up to the summary, or one is listed twice or lies
            outside of the export.
    """
    counted = sum(file.item_count for file in files)
    if counted != summary.item_count:
        raise ExportError(
            f"{_begin(summary)} at {uri}: its summary says {summary.item_count:,} items, its "
            f"{len(files)} files have {counted:,} together.",
            safe=NOTHING_LANDED,
            hint=_AGAIN,
        )
    keys = [file.key for file in files]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ExportError(
            f"{_begin(summary)} at {uri}: file {shown(twice)} is listed twice.",
            safe=NOTHING_LANDED,
            hint=_AGAIN,
        )
    for key in (summary.files_key, *keys):
        path_below(key, uri)
    return ExportManifest(summary, tuple(files), tuple(unverified))


def path_below(key: str, uri: str) -> str:
    """Return the path of a key below the folder that holds `AWSDynamoDB`.

    The prefix of the request is left out: an export may have been copied to another place.

    Raises:
        ExportError: The key is not one of an export.
    """
    _, root, path = key.rpartition(ROOT)
    if not root or any(part in ("", ".", "..") for part in path.split("/")) or "\\" in path:
        raise _not_an_export(uri, f"its manifest names the file {shown(key)}")
    return root + path


def verify_checksum(name: str, body: bytes, checksum: bytes | None, uri: str) -> bool:
    """Compare a manifest with the content of its checksum file.

    Returns:
        False if there is no checksum, or none of a known form (MD5 in base64 or hexadecimal).

    Raises:
        ExportError: The checksum is another one.
    """
    text = (checksum or b"").decode("ascii", "replace").strip()
    digest = hashlib.md5(body, usedforsecurity=False)
    if _HEX_MD5.fullmatch(text.lower()):
        same = text.lower() == digest.hexdigest()
    else:
        try:
            same = (expected := base64.b64decode(text, validate=True)) == digest.digest()
        except (binascii.Error, ValueError):
            return False
        if len(expected) != digest.digest_size:
            return False
    if not same:
        raise ExportError(
            f"{name} of the export at {uri} is damaged: its checksum is another one.",
            safe=NOTHING_LANDED,
            hint=_AGAIN,
        )
    return True


def verify_content(manifest: ExportManifest, file: ExportFile, md5: bytes, lines: int) -> None:
    """Check the bytes and the lines of a data file against its manifest.

    Args:
        manifest: Manifest of the export.
        file: The data file in it.
        md5: Digest of the bytes that were read.
        lines: Number of lines in them.

    Raises:
        ExportError: The file is not the one that the service wrote.
    """
    fault = ""
    if md5 != file.md5:
        fault = "its MD5 is another one"
    elif not _etag_fits(file.etag, md5, manifest.summary.encryption):
        fault = "its MD5 does not fit its etag"
    elif lines != file.item_count:
        fault = f"it has {lines:,} lines, and its manifest says {file.item_count:,}"
    if fault:
        raise ExportError(
            f"File {shown(file.key)} of the {manifest.summary.name}: {fault}.",
            safe="No row of the file landed.",
            hint=_AGAIN,
        )


def _etag_fits(etag: str, md5: bytes, encryption: str) -> bool:
    """Return whether a tag is one of these bytes, where S3 derives it from their MD5."""
    tag = etag.strip('"').lower()
    if encryption == "KMS":
        return True
    if _HEX_MD5.fullmatch(tag):
        return tag == md5.hex()
    if tag.endswith(_ONE_PART) and _HEX_MD5.fullmatch(tag.removesuffix(_ONE_PART)):
        parts = hashlib.md5(md5, usedforsecurity=False).hexdigest()
        return tag == f"{parts}{_ONE_PART}"
    return True  # of several parts, whose sizes nobody says


def _not_an_export(uri: str, fault: str) -> ExportError:
    return ExportError(
        f"The export at {uri} can't be used: {fault}.",
        safe=NOTHING_LANDED,
        hint="Give the folder AWSDynamoDB/<export id> of a completed export.",
    )


def _unreadable(uri: str, name: str, error: Exception) -> ExportError:
    return ExportError(
        f"{name} of the export at {uri} can't be read: {shown(error)}.",
        safe=NOTHING_LANDED,
        hint=_AGAIN,
    )


def _begin(summary: ExportSummary) -> str:
    return summary.name[:1].upper() + summary.name[1:]


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=time.tzinfo or timezone.utc).astimezone(timezone.utc)


def shown_time(time: datetime) -> str:
    """Return a time as the texts on exports show it."""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"
