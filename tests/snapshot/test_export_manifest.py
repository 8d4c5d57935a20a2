from __future__ import annotations

import base64
import hashlib
import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from datazone_dagster.errors import ExportError
from datazone_dagster.model.source_identity import SourceIdentity
from datazone_dagster.snapshot.export_fit import require_table, require_windows
from datazone_dagster.snapshot.export_manifest import (
    ExportFile,
    ExportKind,
    ExportManifest,
    ExportSummary,
    checked,
    parse_files,
    parse_summary,
    path_below,
    verify_checksum,
    verify_content,
)

URI = "s3://bucket/2026/AWSDynamoDB/01693685827463-2d8752fd"
ARN = "arn:aws:dynamodb:us-west-2:123456789012:table/orders"
NOON = datetime(2026, 11, 28, 12, tzinfo=timezone.utc)
FULL: dict[str, Any] = {  # as in the developer guide
    "version": "2020-06-30",
    "exportArn": f"{ARN}/export/01234567890123-a1b2c3d4",
    "startTime": "2026-11-28T12:28:34.028Z",
    "endTime": "2026-11-28T12:33:43.897Z",
    "tableArn": ARN,
    "tableId": "12345a12-abcd-123a-ab12-1234abc12345",
    "exportTime": "2026-11-28T12:28:34.028Z",
    "s3Bucket": "bucket",
    "s3Prefix": "2026",
    "s3SseAlgorithm": "AES256",
    "s3SseKmsKeyId": None,
    "manifestFilesS3Key": "2026/AWSDynamoDB/01234567890123-a1b2c3d4/manifest-files.json",
    "billedSizeBytes": 100,
    "itemCount": 8,
    "outputFormat": "DYNAMODB_JSON",
}
INCREMENTAL: dict[str, Any] = {
    **{name: value for name, value in FULL.items() if name != "exportTime"},
    "version": "2023-08-01",
    "exportFromTime": "2026-11-28T12:00:00.000Z",
    "exportToTime": "2026-11-28T12:20:00.000Z",
    "outputView": "NEW_AND_OLD_IMAGES",
    "exportType": "INCREMENTAL_EXPORT",
}
LINE = {  # as in the developer guide: the etag is that of an upload in one part
    "itemCount": 8,
    "md5Checksum": "sQMSpEILNgoQmarvDFonGQ==",
    "etag": "af83d6f217c19b8b0fff8023d8ca4716-1",
    "dataFileS3Key": "AWSDynamoDB/data/sgad6417s6vss4p7owp0471bcq.json.gz",
}
MD5 = base64.b64decode(LINE["md5Checksum"])  # type: ignore[arg-type]  # a string


def _summary(**members: object) -> ExportSummary:
    base = INCREMENTAL if "exportFromTime" in members else FULL
    return parse_summary(json.dumps({**base, **members}).encode(), URI)


def _window(start: float, end: float, name: str = "", **members: object) -> ExportSummary:
    """Return an incremental export of minutes after noon."""
    times = [(NOON + timedelta(minutes=minute)).isoformat() for minute in (start, end)]
    return _summary(
        exportFromTime=times[0],
        exportToTime=times[1],
        exportArn=f"{ARN}/export/{name or f'{start}-{end}'}",
        **members,
    )


def _table(**members: Any) -> SourceIdentity:
    return SourceIdentity(
        **{"table_name": "orders", "table_arn": ARN, "table_id": FULL["tableId"], **members}
    )


def test_a_full_summary() -> None:
    summary = _summary()
    assert summary.kind is ExportKind.FULL
    assert summary.from_time is None
    assert summary.to_time == datetime(2026, 11, 28, 12, 28, 34, 28000, tzinfo=timezone.utc)
    assert (summary.table_arn, summary.table_id) == (ARN, FULL["tableId"])
    assert (summary.item_count, summary.billed_bytes) == (8, 100)
    assert "01234567890123-a1b2c3d4" in summary.name


def test_an_incremental_summary() -> None:
    summary = parse_summary(json.dumps(INCREMENTAL).encode(), URI)
    assert summary.kind is ExportKind.INCREMENTAL
    assert (summary.from_time, summary.to_time) == (NOON, NOON + timedelta(minutes=20))
    assert summary.view == "NEW_AND_OLD_IMAGES"
    assert "2026-11-28 12:00:00 UTC to 2026-11-28 12:20:00 UTC" in summary.name


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ({"outputFormat": "ION"}, "format ION"),
        ({"exportType": "DIFFERENTIAL"}, "type is DIFFERENTIAL"),
        ({"exportTime": None}, "no exportTime"),
        ({"exportTime": "yesterday"}, "can't be read"),
        ({"itemCount": -1}, "itemCount is -1"),
        ({"itemCount": "8"}, "can't be read"),
        ({"tableArn": None}, "can't be read"),
        ({**INCREMENTAL, "outputView": "KEYS_ONLY"}, "view type is KEYS_ONLY"),
        ({**INCREMENTAL, "outputView": ""}, "view type is not given"),
        ({**INCREMENTAL, "exportFromTime": None}, "no start before its end"),
        ({**INCREMENTAL, "exportToTime": INCREMENTAL["exportFromTime"]}, "no start before its end"),
    ],
)
def test_a_summary_that_is_none(members: dict[str, object], fault: str) -> None:
    with pytest.raises(ExportError, match=fault) as caught:
        parse_summary(json.dumps({**FULL, **members}).encode(), URI)
    assert URI in caught.value.what
    assert caught.value.safe
    assert caught.value.hint


@pytest.mark.parametrize("body", [b"", b"[]", b"<xml>", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_manifest(body: bytes) -> None:
    with pytest.raises(ExportError, match="can't be read"):
        parse_summary(body, URI)
    if body:
        with pytest.raises(ExportError, match="line 1"):
            parse_files(body, URI)


def test_files_are_json_lines() -> None:
    lines = "\n".join([json.dumps(LINE), "", json.dumps({**LINE, "itemCount": 0}), ""])
    first, second = parse_files(lines.encode(), URI)
    assert first == ExportFile(str(LINE["dataFileS3Key"]), 8, MD5, str(LINE["etag"]))
    assert second.item_count == 0
    assert parse_files(b"", URI) == ()


@pytest.mark.parametrize(
    "members", [{"md5Checksum": "x"}, {"md5Checksum": "AAAA"}, {"itemCount": -1}, {"itemCount": ""}]
)
def test_a_line_that_is_none(members: dict[str, object]) -> None:
    lines = [json.dumps(LINE), json.dumps({**LINE, **members})]
    with pytest.raises(ExportError, match="line 2"):
        parse_files("\n".join(lines).encode(), URI)


def test_counts_have_to_add_up() -> None:
    file = ExportFile("AWSDynamoDB/data/a.json.gz", 5, MD5)
    other = ExportFile("AWSDynamoDB/data/b.json.gz", 3, MD5)
    assert checked(_summary(), [file, other], URI).files == (file, other)
    with pytest.raises(ExportError, match="says 8 items, its 1 files have 5"):
        checked(_summary(), [file], URI)
    with pytest.raises(ExportError, match=r"a\.json\.gz is listed twice"):
        checked(_summary(itemCount=10), [file, file], URI)


@pytest.mark.parametrize(
    "key",
    [
        "etc/passwd",
        "AWSDynamoDB/../../etc/passwd",
        "AWSDynamoDB//x",
        "AWSDynamoDB/a/./b",
        "AWSDynamoDB/..\\x",
        "AWSDynamoDB/",
    ],
)
def test_a_key_outside_of_the_export(key: str) -> None:
    with pytest.raises(ExportError, match="names the file"):
        path_below(key, URI)
    with pytest.raises(ExportError, match="names the file"):
        checked(_summary(), [ExportFile(key, 8, MD5)], URI)


def test_the_prefix_of_the_request_is_left_out() -> None:
    assert path_below("a/b/AWSDynamoDB/data/x.json.gz", URI) == "AWSDynamoDB/data/x.json.gz"
    assert path_below("AWSDynamoDB/y/AWSDynamoDB/1/x", URI) == "AWSDynamoDB/1/x"


def test_checksums_of_manifests() -> None:
    md5 = hashlib.md5(b"body")
    for text in (md5.hexdigest().encode(), base64.b64encode(md5.digest()) + b"\n"):
        assert verify_checksum("manifest-files.json", b"body", text, URI)
        with pytest.raises(ExportError, match=r"manifest-files\.json .* damaged"):
            verify_checksum("manifest-files.json", b"other", text, URI)
    for unknown in (None, b"", b"sha512:1", b"AAAA", b"\xff"):
        assert not verify_checksum("manifest-files.json", b"body", unknown, URI)


def _manifest(etag: str, **members: object) -> tuple[ExportManifest, ExportFile]:
    file = ExportFile("AWSDynamoDB/data/a.json.gz", 8, MD5, etag)
    return checked(_summary(**members), [file], URI), file


@pytest.mark.parametrize(
    "etag", [LINE["etag"], f'"{MD5.hex()}"', MD5.hex(), "", "0" * 32 + "-3", "opaque"]
)
def test_the_bytes_of_a_file(etag: str) -> None:
    manifest, file = _manifest(etag)
    verify_content(manifest, file, MD5, 8)
    with pytest.raises(ExportError, match="MD5 is another one"):
        verify_content(manifest, file, MD5[::-1], 8)
    with pytest.raises(ExportError, match="has 7 lines, and its manifest says 8"):
        verify_content(manifest, file, MD5, 7)


@pytest.mark.parametrize("etag", ["0" * 32, "0" * 32 + "-1"])
def test_a_tag_of_other_bytes(etag: str) -> None:
    with pytest.raises(ExportError, match="does not fit its etag"):
        verify_content(*_manifest(etag), MD5, 8)
    verify_content(*_manifest(etag, s3SseAlgorithm="KMS"), MD5, 8)  # no MD5 there


def test_an_export_of_the_table() -> None:
    require_table(_summary(), _table())
    require_table(_summary(), _table(table_id=""))
    require_table(_summary(), _table(table_arn="", table_id=""))
    require_table(_summary(), _table(table_arn="", table_name=ARN))


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ({"table_arn": ARN.replace("us-west-2", "eu-west-1")}, "not of arn:aws:dynamodb:eu"),
        ({"table_arn": "", "table_name": "others"}, "not of table 'others'"),
        ({"table_id": "another"}, "had the name before"),
    ],
)
def test_an_export_of_another_table(table: dict[str, str], fault: str) -> None:
    with pytest.raises(ExportError, match=fault) as caught:
        require_table(_summary(), _table(**table))
    assert "a1b2c3d4" in caught.value.what
    assert caught.value.hint


def _require(*exports: ExportSummary, lost: tuple[float, float] = (0, 60)) -> None:
    start, end = (NOON + timedelta(minutes=minute) for minute in lost)
    require_windows(exports, start, end)


def test_windows_that_cover_what_was_lost() -> None:
    _require(_window(0, 60))
    _require(_window(-10, 70))
    _require(_window(0, 20), _window(20, 40), _window(40, 60))
    _require(_window(0, 30), _window(20, 60))  # the second one is newer
    _require(_window(0, 30), _window(0, 60))
    _require(_window(-90, -30), _window(-30, 30), _window(30, 60))


@pytest.mark.parametrize(
    ("windows", "fault"),
    [
        ([], "No export covers 2026-11-28 12:00:00 UTC to 2026-11-28 13:00:00 UTC at all"),
        ([(5, 60)], "covers 2026-11-28 12:00:00 UTC to 2026-11-28 12:05:00 UTC before the .*5-60"),
        ([(0, 20), (21, 60)], "12:20:00 UTC to 2026-11-28 12:21:00 UTC before the .*21-60"),
        ([(0, 59)], "12:59:00 UTC to 2026-11-28 13:00:00 UTC after the last"),
        ([(20, 60), (0, 20)], "12:20:00 UTC before the .*20-60"),
        ([(0, 40), (20, 60), (10, 90)], "out of order: the .*10-90.* begins before the .*20-60"),
        ([(0, 40), (20, 40), (40, 60)], "overlap wrongly: the .*20-40.* ends within the .*0-40"),
        ([(0, 60), (0, 60)], "overlap wrongly"),
        ([(0, 60), (15, 30)], "overlap wrongly"),
    ],
)
def test_windows_that_do_not(windows: list[tuple[float, float]], fault: str) -> None:
    with pytest.raises(ExportError, match=fault) as caught:
        _require(*(_window(*window) for window in windows))
    assert caught.value.safe == "No row of these exports landed."
    assert caught.value.hint


def test_a_long_hole_needs_several_exports() -> None:
    with pytest.raises(ExportError, match="at most 24 hours each"):
        _require(lost=(0, 3 * 1440))


def test_windows_of_two_tables_and_full_exports() -> None:
    other = ARN.replace("orders", "others")
    for members in ({"tableArn": other}, {"tableId": "another"}):
        with pytest.raises(ExportError, match=r"0-30.* is not"):
            _require(_window(0, 30), _window(30, 60, **members))
    with pytest.raises(ExportError, match=r"full export .* has no window"):
        _require(_summary())
