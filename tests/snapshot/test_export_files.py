"""Reading exports that the emulator wrote, from a folder and from an object store."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import boto3
import pytest

from datazone_dagster.errors import DefinitionError, ExportError
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.snapshot import export_files
from datazone_dagster.snapshot.export_files import ExportReader
from datazone_dagster.snapshot.export_manifest import ExportKind
from tests.faults.object_store import BUCKET, faulty_store

EVERY_TYPE: dict[str, Any] = {
    "s": {"S": 'quote " é 漢 \u2028 \\'},
    "n": {"N": "12345678901234567890123456789012345678"},
    "b": {"B": b"\x00\xff"},
    "l": {"L": [{"M": {"k": {"NULL": True}}}, {"S": "line\nbreak"}]},
}


class Exported:
    """A table of the emulator with exports of it: one full, two incremental."""

    def __init__(self, server: LocalDynamoDB, bucket: Path) -> None:
        self.bucket, self._admin = bucket, server.admin
        self._admin.set_bucket("exports", bucket)
        self._dynamodb: Any = boto3.client(
            "dynamodb",
            endpoint_url=server.endpoint_url,
            region_name="us-west-2",
            aws_access_key_id="k",
            aws_secret_access_key="s",
        )
        created = self._dynamodb.create_table(
            TableName="orders",
            KeySchema=[
                {"AttributeName": "k", "KeyType": "HASH"},
                {"AttributeName": "a", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": "k", "AttributeType": "S"},
                {"AttributeName": "a", "AttributeType": "N"},
            ],
            BillingMode="PAY_PER_REQUEST",
        )["TableDescription"]
        self._arn = created["TableArn"]
        self._dynamodb.update_continuous_backups(
            TableName="orders",
            PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True},
        )
        self._fill()

    def _fill(self) -> None:
        for number in range(50):
            self._put(f"item-{number}", 1)
        first = self._pass_time()
        self._put("item-1", 2)
        self._put("new", 1)
        self._dynamodb.delete_item(TableName="orders", Key=_key("item-2"))
        second = self._pass_time()
        self._put("item-1", 3)
        third = self._pass_time()
        self.full = self._export()
        self.first = self._window(first, second)
        self.second = self._window(second, third, view="NEW_IMAGE")

    def _put(self, item_id: str, version: int) -> None:
        item = {**_key(item_id), "version": {"N": str(version)}, **EVERY_TYPE}
        self._dynamodb.put_item(TableName="orders", Item=item)

    def _pass_time(self) -> datetime:
        """Let 20 minutes pass; return a whole second within them."""
        self._admin.advance_clock(10)
        now = datetime.fromtimestamp(int(self._admin.now()), timezone.utc)
        self._admin.advance_clock(1200)
        return now

    def _export(self, **request: Any) -> str:
        export = self._dynamodb.export_table_to_point_in_time(
            TableArn=self._arn, S3Bucket="exports", S3Prefix="daily", **request
        )["ExportDescription"]
        described = self._dynamodb.describe_export(ExportArn=export["ExportArn"])
        manifest = described["ExportDescription"]["ExportManifest"]
        return str(Path(manifest).parent)

    def _window(self, start: datetime, end: datetime, view: str = "NEW_AND_OLD_IMAGES") -> str:
        specification = {"ExportFromTime": start, "ExportToTime": end, "ExportViewType": view}
        return self._export(
            ExportType="INCREMENTAL_EXPORT", IncrementalExportSpecification=specification
        )


def _key(item_id: str) -> dict[str, Any]:
    return {"k": {"S": item_id}, "a": {"N": "-1.5"}}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    with LocalDynamoDB(shards=3) as server:
        yield Exported(server, tmp_path_factory.mktemp("bucket"))


@pytest.fixture
def copy(exported: Exported, tmp_path: Path) -> Path:
    """A copy of the bucket's exports, without their prefix, that a test may damage."""
    return Path(shutil.copytree(exported.bucket / "daily", tmp_path / "copied"))


def _items(reader: ExportReader) -> dict[str, dict[str, Any]]:
    manifest = reader.manifest()
    found = {}
    for file in manifest.files:
        for item in reader.items(manifest, file, ("k", "a")):
            image = json.loads(item.image)
            assert json.loads(item.keys) == {"k": image["k"], "a": image["a"]}
            assert list(json.loads(item.keys)) == ["k", "a"]
            assert item.size_bytes == len(item.image.encode())
            found[image["k"]["S"]] = image
    return found


def _changes(reader: ExportReader) -> dict[str, tuple[str | None, str | None]]:
    manifest = reader.manifest()
    found = {}
    for file in manifest.files:
        for change in reader.changes(manifest, file):
            images = (change.old_image, change.new_image)
            old, new = (json.loads(one)["version"]["N"] if one else None for one in images)
            found[json.loads(change.keys)["k"]["S"]] = (old, new)
            assert change.written_at_micros > 1_600_000_000_000_000
    return found


def test_a_full_export(exported: Exported) -> None:
    reader = ExportReader(str(exported.bucket / exported.full))
    manifest = reader.manifest()
    assert manifest.summary.kind is ExportKind.FULL
    assert manifest.summary.item_count == 50
    assert manifest.unverified == ()
    assert len(manifest.files) == 3
    found = _items(reader)
    assert len(found) == 50
    assert found["item-1"] == {
        **_key("item-1"),
        "version": {"N": "3"},
        **EVERY_TYPE,
        "b": {"B": "AP8="},
    }


def test_incremental_exports_with_and_without_old_images(exported: Exported) -> None:
    first = ExportReader(str(exported.bucket / exported.first))
    assert _changes(first) == {"item-1": ("1", "2"), "new": (None, "1"), "item-2": ("1", None)}
    second = ExportReader(str(exported.bucket / exported.second))
    assert _changes(second) == {"item-1": (None, "3")}
    window = second.manifest().summary
    assert window.from_time == first.manifest().summary.to_time
    assert window.from_time is not None
    assert window.to_time - window.from_time == timedelta(seconds=1210)


def test_one_kind_is_not_read_as_the_other(exported: Exported) -> None:
    reader = ExportReader(str(exported.bucket / exported.first))
    manifest = reader.manifest()
    with pytest.raises(ExportError, match="not of type FULL_EXPORT"):
        next(reader.items(manifest, manifest.files[0], ("k", "a")))
    reader = ExportReader(str(exported.bucket / exported.full))
    manifest = reader.manifest()
    with pytest.raises(ExportError, match="not of type INCREMENTAL_EXPORT"):
        next(reader.changes(manifest, manifest.files[0]))


@pytest.mark.parametrize("spelled", ["{}", "{}/", "{}/manifest-summary.json", "file://{}"])
def test_locations_of_an_export(copy: Path, exported: Exported, spelled: str) -> None:
    own = Path(exported.full).relative_to("daily")
    assert len(_items(ExportReader(spelled.format(copy / own)))) == 50


def test_an_export_in_an_object_store(exported: Exported) -> None:
    with faulty_store() as store:
        s3 = boto3.client(
            "s3",
            endpoint_url=store.options["AWS_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id="k",
            aws_secret_access_key="s",
        )
        for path in exported.bucket.rglob("*"):
            if path.is_file():
                key = f"copied/{path.relative_to(exported.bucket)}"
                s3.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
        root = f"s3://{BUCKET}/copied"
        assert len(_items(ExportReader(f"{root}/{exported.full}", store.options))) == 50
        assert len(_changes(ExportReader(f"{root}/{exported.first}", store.options))) == 3
        with pytest.raises(ExportError, match="no manifest-summary"):
            ExportReader(f"{root}/daily/AWSDynamoDB/1-1", store.options).manifest()


def test_a_secret_in_a_location_is_refused_and_not_shown() -> None:
    with pytest.raises(DefinitionError, match="user name or a password") as caught:
        ExportReader("s3://key:hush@bucket/AWSDynamoDB/1-1")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    ["s3://bucket/data", "s3://bucket/AWSDynamoDB", "/x/AWSDynamoDB/1/data", "yAWSDynamoDB/1"],
)
def test_a_location_that_is_none(uri: str) -> None:
    with pytest.raises(ExportError, match="not the location of an export"):
        ExportReader(uri)


def test_an_export_that_is_not_finished(copy: Path, exported: Exported) -> None:
    folder = copy / Path(exported.full).relative_to("daily")
    (folder / "manifest-summary.json").unlink()
    with pytest.raises(ExportError, match="no manifest-summary") as caught:
        ExportReader(str(folder)).manifest()
    assert "COMPLETED" in caught.value.hint


@pytest.mark.parametrize("name", ["manifest-summary", "manifest-files"])
def test_damaged_manifests(copy: Path, exported: Exported, name: str) -> None:
    folder = copy / Path(exported.full).relative_to("daily")
    body = (folder / f"{name}.json").read_bytes()
    (folder / f"{name}.json").write_bytes(body.replace(b"itemCount", b"itemcount"))
    with pytest.raises(ExportError, match=rf"{name}\.json .* damaged"):
        ExportReader(str(folder)).manifest()


def test_missing_checksums_are_told(copy: Path, exported: Exported) -> None:
    folder = copy / Path(exported.full).relative_to("daily")
    for checksum in folder.glob("*.checksum"):
        checksum.unlink()
    manifest = ExportReader(str(folder)).manifest()
    assert manifest.unverified == ("manifest-summary.json", "manifest-files.json")


def _largest(folder: Path) -> tuple[ExportReader, Path, int]:
    """Return a reader, the path of the largest data file, and its index in the manifest."""
    reader = ExportReader(str(folder))
    files = reader.manifest().files
    index = max(range(len(files)), key=lambda number: files[number].item_count)
    return reader, folder / "data" / Path(files[index].key).name, index


def _rewrite(folder: Path, path: Path, packed: bytes) -> None:
    """Replace a data file, and its digest in the manifest: what only the lines can show."""
    path.write_bytes(packed)
    manifest = folder / "manifest-files.json"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for line in lines:
        if line["dataFileS3Key"].endswith(path.name):
            line["md5Checksum"] = base64.b64encode(hashlib.md5(packed).digest()).decode()
            line["etag"] = ""
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "manifest-files.checksum").unlink()


def _first_row(reader: ExportReader, index: int) -> object:
    manifest = reader.manifest()
    return next(reader.items(manifest, manifest.files[index], ("k", "a")), None)


def test_no_row_of_a_damaged_file(copy: Path, exported: Exported) -> None:
    folder = copy / Path(exported.full).relative_to("daily")
    reader, path, index = _largest(folder)
    packed = path.read_bytes()
    for damaged in (
        packed[:-20],
        packed + b"x",
        packed[:100] + b"x" + packed[101:],
        b"",
        gzip.compress(gzip.decompress(packed).replace(b"item-1", b"item-X")),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ExportError, match="MD5 is another one") as caught:
            _first_row(reader, index)
        assert path.name in caught.value.what
        assert "No row of the file landed" in caught.value.safe
    path.unlink()
    with pytest.raises(ExportError, match="is missing"):
        _first_row(reader, index)


def test_lines_are_counted_before_the_first_row(copy: Path, exported: Exported) -> None:
    folder = copy / Path(exported.full).relative_to("daily")
    reader, path, index = _largest(folder)
    content = gzip.decompress(path.read_bytes())
    count = content.count(b"\n")
    _rewrite(folder, path, gzip.compress(content[content.index(b"\n") + 1 :]))
    with pytest.raises(ExportError, match=f"has {count - 1} lines, and its manifest says {count}"):
        _first_row(reader, index)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"{}", "line 1 can't be read"),
        (b'{"Item":{"k":{"S":"x"}}}', "line 1 can't be read.*`a`"),
        (b'{"Item":[]}', "line 1 can't be read"),
        (b"\xff", "line 1 can't be read"),
        (b'{"Item":' + b"[" * 100_000, "line 1 can't be read"),
    ],
)
def test_lines_that_are_none(copy: Path, exported: Exported, line: bytes, fault: str) -> None:
    folder = copy / Path(exported.full).relative_to("daily")
    reader, path, index = _largest(folder)
    rest = gzip.decompress(path.read_bytes()).split(b"\n", 1)[1]
    _rewrite(folder, path, gzip.compress(line + b"\n" + rest))
    with pytest.raises(ExportError, match=fault) as caught:
        _first_row(reader, index)
    assert path.name in caught.value.what


def test_a_line_without_end_is_not_read_into_memory(
    copy: Path, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_files, "LINE_BYTES_MAX", 10_000)
    folder = copy / Path(exported.full).relative_to("daily")
    reader, path, index = _largest(folder)
    _rewrite(folder, path, gzip.compress(b" " * 20_000))
    with pytest.raises(ExportError, match="line of more than 10,000 bytes"):
        _first_row(reader, index)


def test_a_manifest_never_leads_outside(copy: Path, exported: Exported) -> None:
    folder = copy / Path(exported.full).relative_to("daily")
    manifest = folder / "manifest-files.json"
    manifest.write_text(manifest.read_text().replace("/data/", "/../../../"))
    (folder / "manifest-files.checksum").unlink()
    with pytest.raises(ExportError, match="names the file"):
        ExportReader(str(folder)).manifest()
