"""Point-in-time recovery and exports: requests, states as of a time, and the files."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from botocore.exceptions import ClientError

from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.local.service_errors import ServiceError
from tests.local.stream_reading import Clients, Table, clients_of, create_table, error_code


class World(NamedTuple):
    table: Table
    arn: str
    bucket: Path
    server: LocalDynamoDB

    @property
    def dynamodb(self) -> Any:
        return self.table.clients.dynamodb

    def put(self, item_id: str, value: int) -> None:
        self.table.put(item_id, v={"N": str(value)})

    def pass_time(self, seconds: float) -> datetime:
        """Move the clock on; return the new time, in whole seconds after all writes so far."""
        self.server.admin.advance_clock(seconds)
        return datetime.fromtimestamp(int(self.server.admin.now()), timezone.utc)

    def recover(self, enabled: bool = True) -> Any:
        return self.dynamodb.update_continuous_backups(
            TableName=self.table.name,
            PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": enabled},
        )["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"]

    def export(self, **request: Any) -> Any:
        started = self.dynamodb.export_table_to_point_in_time(
            TableArn=self.arn, **{"S3Bucket": "exports", **request}
        )["ExportDescription"]
        return self.described(started["ExportArn"])

    def window(self, start: datetime, end: datetime, **specification: Any) -> Any:
        return self.export(
            ExportType="INCREMENTAL_EXPORT",
            IncrementalExportSpecification={
                "ExportFromTime": start,
                "ExportToTime": end,
                **specification,
            },
        )

    def described(self, arn: str) -> Any:
        return self.dynamodb.describe_export(ExportArn=arn)["ExportDescription"]

    def summary(self, export: Any) -> Any:
        return json.loads((self.bucket / export["ExportManifest"]).read_bytes())

    def lines(self, export: Any) -> list[Any]:
        """Return the lines of an export by its manifests, each file and number checked."""
        summary = self.summary(export)
        files = (self.bucket / summary["manifestFilesS3Key"]).read_text().splitlines()
        found: list[Any] = []
        for file in map(json.loads, files):
            packed = (self.bucket / file["dataFileS3Key"]).read_bytes()
            md5 = hashlib.md5(packed).digest()
            assert file["md5Checksum"] == base64.b64encode(md5).decode()
            assert file["etag"] == f"{hashlib.md5(md5).hexdigest()}-1"
            lines = gzip.decompress(packed).splitlines()
            assert len(lines) == file["itemCount"]
            found += map(json.loads, lines)
        assert len(found) == summary["itemCount"] == export["ItemCount"]
        return found

    def state(self, export: Any) -> dict[str, str]:
        items = [line["Item"] for line in self.lines(export)]
        return {item["id"]["S"]: item["v"]["N"] for item in items}


@pytest.fixture
def world(own_server: LocalDynamoDB, own_clients: Clients, tmp_path: Path) -> World:
    own_server.admin.set_bucket("exports", tmp_path / "exports")
    table = create_table(own_clients, "orders")
    described = own_clients.dynamodb.describe_table(TableName="orders")["Table"]
    return World(table, described["TableArn"], tmp_path / "exports", own_server)


def test_recovery_on_and_off(world: World) -> None:
    status = world.dynamodb.describe_continuous_backups(TableName="orders")
    recovery = status["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"]
    assert recovery == {"PointInTimeRecoveryStatus": "DISABLED"}
    with pytest.raises(ClientError) as refused:
        world.export()
    assert error_code(refused) == "PointInTimeRecoveryUnavailableException"

    enabled = world.recover()
    assert enabled["PointInTimeRecoveryStatus"] == "ENABLED"
    assert enabled["RecoveryPeriodInDays"] == 35
    assert enabled["LatestRestorableDateTime"] == enabled["EarliestRestorableDateTime"]
    world.pass_time(3600)
    later = world.recover()  # again: the beginning stays
    assert later["EarliestRestorableDateTime"] == enabled["EarliestRestorableDateTime"]
    behind = later["LatestRestorableDateTime"] - later["EarliestRestorableDateTime"]
    assert timedelta(minutes=54) < behind < timedelta(minutes=56)
    world.pass_time(40 * 86_400)
    oldest = world.recover()["EarliestRestorableDateTime"]
    assert timedelta(days=4) < oldest - enabled["EarliestRestorableDateTime"] < timedelta(days=6)
    assert world.recover(enabled=False) == {"PointInTimeRecoveryStatus": "DISABLED"}


def test_a_full_export_and_its_files(world: World) -> None:
    world.put("before recovery", 1)
    world.recover()
    for number in range(20):
        world.put(f"{number}", number)
    world.table.delete("3")
    export = world.export(S3Prefix="a/b")
    assert world.state(export) == {
        "before recovery": "1",
        **{f"{number}": f"{number}" for number in range(20) if number != 3},
    }
    export_id = export["ExportArn"].rsplit("/", 1)[1]
    folder = world.bucket / "a" / "b" / "AWSDynamoDB" / export_id
    assert export["ExportManifest"] == f"a/b/AWSDynamoDB/{export_id}/manifest-summary.json"
    assert sorted(path.name for path in folder.iterdir()) == [
        "_started",
        "data",
        "manifest-files.checksum",
        "manifest-files.json",
        "manifest-summary.checksum",
        "manifest-summary.json",
    ]
    for name in ("manifest-files", "manifest-summary"):
        md5 = hashlib.md5((folder / f"{name}.json").read_bytes()).digest()
        assert (folder / f"{name}.checksum").read_bytes() == base64.b64encode(md5)
    summary = world.summary(export)
    assert datetime.fromisoformat(summary["exportTime"].replace("Z", "+00:00"))
    assert summary["billedSizeBytes"] == export["BilledSizeBytes"] > 0
    described = world.dynamodb.describe_table(TableName="orders")["Table"]
    assert {name: summary[name] for name in summary if not name.endswith("Time")} == {
        "version": "2020-06-30",
        "exportArn": f"{world.arn}/export/{export_id}",
        "tableArn": world.arn,
        "tableId": described["TableId"],
        "s3Bucket": "exports",
        "s3Prefix": "a/b",
        "s3SseAlgorithm": "AES256",
        "s3SseKmsKeyId": None,
        "manifestFilesS3Key": f"a/b/AWSDynamoDB/{export_id}/manifest-files.json",
        "billedSizeBytes": export["BilledSizeBytes"],
        "itemCount": 20,
        "outputFormat": "DYNAMODB_JSON",
    }


def test_a_full_export_as_of_a_time(world: World) -> None:
    world.recover()
    world.put("a", 1)
    world.put("b", 1)
    then = world.pass_time(10)
    world.pass_time(10)
    world.put("a", 2)
    world.table.delete("b")
    world.put("c", 1)
    assert world.state(world.export(ExportTime=then)) == {"a": "1", "b": "1"}
    assert world.state(world.export()) == {"a": "2", "c": "1"}


def test_an_empty_table_has_files_of_no_items(world: World) -> None:
    world.recover()
    export = world.export()
    assert world.lines(export) == []
    files = (world.bucket / world.summary(export)["manifestFilesS3Key"]).read_text()
    assert files.count("\n") == 1  # one per partition, and the server has one shard


@pytest.mark.parametrize("view", ["NEW_AND_OLD_IMAGES", "NEW_IMAGE"])
def test_net_changes_of_a_window(world: World, view: str) -> None:
    world.recover()
    for item_id in ("changed", "deleted", "untouched", "back"):
        world.put(item_id, 1)
    start = world.pass_time(10)
    world.pass_time(10)
    world.put("changed", 2)
    world.put("changed", 3)
    world.put("inserted", 1)
    world.table.delete("deleted")
    world.put("passing", 1)
    world.table.delete("passing")
    world.table.delete("back")
    world.put("back", 2)
    before = int(world.server.admin.now() * 1_000_000)
    world.pass_time(900)
    end = world.pass_time(10)
    world.pass_time(10)
    world.put("changed", 4)  # after the window
    world.put("untouched", 2)

    export = world.window(start, end, ExportViewType=view)
    lines = {line["Keys"]["id"]["S"]: line for line in world.lines(export)}
    assert sorted(lines) == ["back", "changed", "deleted", "inserted"]

    def images(item_id: str) -> tuple[str | None, str | None]:
        found = (lines[item_id].get(name) for name in ("OldImage", "NewImage"))
        old, new = (image["v"]["N"] if image else None for image in found)
        return old, new

    with_old = view == "NEW_AND_OLD_IMAGES"
    one = "1" if with_old else None
    assert images("changed") == (one, "3")
    assert images("inserted") == (None, "1")
    assert images("deleted") == (one, None)
    assert images("back") == (one, "2")
    micros = int(lines["changed"]["Metadata"]["WriteTimestampMicros"]["N"])
    assert before - 9_000_000 < micros <= before
    summary = world.summary(export)
    assert summary["version"] == "2023-08-01"
    assert summary["exportType"] == "INCREMENTAL_EXPORT"
    assert summary["outputView"] == view
    assert summary["exportFromTime"] == f"{start:%Y-%m-%dT%H:%M:%S}.000Z"
    assert summary["exportToTime"] == f"{end:%Y-%m-%dT%H:%M:%S}.000Z"
    assert "exportTime" not in summary


def test_windows_share_a_folder_and_the_manifest_tells_them_apart(world: World) -> None:
    world.recover()
    first = world.pass_time(10)
    world.pass_time(10)
    world.put("a", 1)
    second = world.pass_time(900)
    world.pass_time(10)
    world.put("b", 1)
    third = world.pass_time(920)
    exports = [world.window(first, second), world.window(second, third)]
    found = [[line["Keys"]["id"]["S"] for line in world.lines(export)] for export in exports]
    assert found == [["a"], ["b"]]
    shared = world.bucket / "AWSDynamoDB" / "data"
    assert len(list(shared.glob("*.json.gz"))) == 2
    for export in exports:
        (file,) = (
            (world.bucket / world.summary(export)["manifestFilesS3Key"]).read_text().splitlines()
        )
        assert json.loads(file)["dataFileS3Key"].startswith("AWSDynamoDB/data/")


def test_windows_that_the_service_refuses(world: World) -> None:
    world.recover()
    start = world.pass_time(10)
    end = world.pass_time(2 * 86_400)
    for from_, to, code in (
        (start, start + timedelta(minutes=14), "ValidationException"),
        (start, start + timedelta(hours=25), "ValidationException"),
        (start - timedelta(hours=1), start, "InvalidExportTimeException"),
        (end - timedelta(hours=1), end + timedelta(hours=1), "InvalidExportTimeException"),
        (end, end - timedelta(hours=1), "InvalidExportTimeException"),
    ):
        with pytest.raises(ClientError) as refused:
            world.window(from_, to)
        assert error_code(refused) == code
    with pytest.raises(ClientError) as refused:
        world.export(ExportTime=start - timedelta(hours=1))
    assert error_code(refused) == "InvalidExportTimeException"


def test_an_export_takes_time_and_shows_the_state_of_its_start(world: World) -> None:
    world.recover()
    world.put("a", 1)
    world.server.admin.set_exports(seconds=600)
    export = world.export()
    assert export["ExportStatus"] == "IN_PROGRESS"
    assert "ExportManifest" not in export
    assert [path.name for path in world.bucket.rglob("*") if path.is_file()] == ["_started"]
    world.put("a", 2)
    world.pass_time(601)
    done = world.described(export["ExportArn"])
    assert done["ExportStatus"] == "COMPLETED"
    assert world.state(done) == {"a": "1"}
    assert world.described(export["ExportArn"]) == done


def test_exports_that_fail(world: World) -> None:
    world.recover()
    no_bucket = world.export(S3Bucket="unknown")
    assert (no_bucket["ExportStatus"], no_bucket["FailureCode"]) == ("FAILED", "S3NoSuchBucket")
    assert "set_bucket" in no_bucket["FailureMessage"]
    world.bucket.parent.joinpath("a-file").write_text("")
    world.server.admin.set_bucket("a-file", world.bucket.parent / "a-file")
    assert world.export(S3Bucket="a-file")["FailureCode"] == "S3AccessDenied"
    world.server.admin.set_exports(fail=True)
    scripted = world.export()
    assert scripted["ExportStatus"] == "FAILED"
    assert "EndTime" in scripted
    assert not list(world.bucket.rglob("manifest-*"))
    world.server.admin.set_exports()
    assert world.export()["ExportStatus"] == "COMPLETED"


@pytest.mark.parametrize("prefix", ["../outside", "a/../../b", "..", "a\0b", "a\\b"])
def test_a_prefix_never_leaves_its_bucket(world: World, prefix: str) -> None:
    world.recover()
    with pytest.raises(ClientError) as refused:
        world.export(S3Prefix=prefix)
    assert error_code(refused) == "ValidationException"
    assert not world.bucket.exists()


def test_a_request_twice_is_one_export(world: World) -> None:
    world.recover()
    first, again = (world.export(ClientToken="t") for _ in range(2))
    assert first == again
    with pytest.raises(ClientError) as refused:
        world.export(ClientToken="t", S3Prefix="other")
    assert error_code(refused) == "ExportConflictException"
    assert world.export()["ExportArn"] != first["ExportArn"]


def test_exports_are_listed_page_by_page(world: World) -> None:
    world.recover()
    arns = [world.export()["ExportArn"] for _ in range(5)]
    pages = [world.dynamodb.list_exports(TableArn=world.arn, MaxResults=2)]
    while "NextToken" in pages[-1]:
        token = pages[-1]["NextToken"]
        pages.append(world.dynamodb.list_exports(TableArn=world.arn, MaxResults=2, NextToken=token))
    listed = [one["ExportArn"] for page in pages for one in page["ExportSummaries"]]
    assert listed == arns[::-1]
    assert len(pages) == 3
    other = world.arn.replace("orders", "others")
    assert world.dynamodb.list_exports(TableArn=other)["ExportSummaries"] == []


def test_what_is_not_there(world: World) -> None:
    world.recover()
    with pytest.raises(ClientError) as refused:
        world.described(f"{world.arn}/export/0-0")
    assert error_code(refused) == "ExportNotFoundException"
    with pytest.raises(ClientError) as refused:
        world.dynamodb.export_table_to_point_in_time(
            TableArn=world.arn.replace("orders", "others"), S3Bucket="exports"
        )
    assert error_code(refused) == "TableNotFoundException"
    with pytest.raises(ClientError) as refused:
        world.dynamodb.describe_continuous_backups(TableName="others")
    assert error_code(refused) == "TableNotFoundException"
    with pytest.raises(ServiceError, match="absolute path"):
        world.server.admin._call("bucket", bucket="b", folder="here")


def test_recovery_and_a_lag_share_the_past(world: World) -> None:
    world.recover()
    world.server.admin.set_lag("orders", writes=1)
    world.put("a", 1)
    then = world.pass_time(10)
    world.pass_time(10)
    world.put("a", 2)
    world.server.admin.set_lag("orders")
    assert world.state(world.export(ExportTime=then)) == {"a": "1"}


def test_buckets_and_exports_survive_a_restart(tmp_path: Path) -> None:
    where: dict[str, Any] = {"data_dir": tmp_path / "state", "shards": 2}
    with LocalDynamoDB(**where, buckets={"b": tmp_path / "b"}) as server:
        clients = clients_of(server)
        table = create_table(clients, "orders")
        arn = clients.dynamodb.describe_table(TableName="orders")["Table"]["TableArn"]
        world = World(table, arn, tmp_path / "b", server)
        world.recover()
        world.put("a", 1)
        export = world.export(S3Bucket="b")
        assert len(world.lines(export)) == 1
        server.admin.reset()  # buckets of the command line stay
        with pytest.raises(ClientError):
            world.described(export["ExportArn"])
        table = create_table(clients, "orders")
        world = World(table, arn, tmp_path / "b", server)
        world.recover()
        world.put("a", 2)
        then = world.pass_time(10)
        world.pass_time(10)
        world.put("a", 3)
        export = world.export(S3Bucket="b")
    with LocalDynamoDB(**where, buckets={"b": tmp_path / "b"}) as server:
        clients = clients_of(server)
        world = World(Table("orders", "", clients), arn, tmp_path / "b", server)
        assert world.described(export["ExportArn"]) == export
        assert world.state(world.export(S3Bucket="b", ExportTime=then)) == {"a": "2"}
