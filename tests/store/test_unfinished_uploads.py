"""Uploads of large files whose process was killed: maintenance aborts them a day later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import boto3
import pytest
from botocore.config import Config

from datazone_dagster.delta import remote_files
from datazone_dagster.delta.store import TableStore
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import MaintenanceReport
from datazone_dagster.pipeline import apply_transform, drain_once, maintain_dataset
from datazone_dagster.pipeline.table_calls import maintain_asset_table
from datazone_dagster.testing import ScriptedStream
from tests.asset_tables.writing import NAME, people, put
from tests.faults.orders import SOURCE, current_rows, expected_rows, flow, order
from tests.store.proxy import Proxy
from tests.store.servers import BUCKET

CURRENT = flow.outputs["current"]
A_DAY = timedelta(hours=24, minutes=1)


class Uploads:
    """The unfinished uploads of the bucket, by a client of its own that does not use the proxy."""

    def __init__(self, address: tuple[str, int], options: dict[str, str]) -> None:
        self._s3: Any = boto3.client(
            "s3",
            endpoint_url=f"http://{address[0]}:{address[1]}",
            region_name=options["AWS_REGION"],
            aws_access_key_id=options["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=options["AWS_SECRET_ACCESS_KEY"],
            config=Config(s3={"addressing_style": "path"}),
        )

    def begin(self, key: str) -> None:
        found = self._s3.create_multipart_upload(Bucket=BUCKET, Key=key)
        self._s3.upload_part(
            Bucket=BUCKET, Key=key, UploadId=found["UploadId"], PartNumber=1, Body=b"x" * 100
        )

    def keys(self) -> list[str]:
        found = self._s3.list_multipart_uploads(Bucket=BUCKET)
        return [one["Key"] for one in found.get("Uploads", ())]

    def abort_all(self) -> None:
        for one in self._s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ()):
            self._s3.abort_multipart_upload(Bucket=BUCKET, Key=one["Key"], UploadId=one["UploadId"])


@pytest.fixture
def uploads(s3_address: tuple[str, int], s3_options: dict[str, str]) -> Iterator[Uploads]:
    found = Uploads(s3_address, s3_options)
    yield found
    found.abort_all()


@pytest.fixture
def layout(s3_lakehouse: Layout) -> Layout:
    stream = ScriptedStream()
    stream.put(order(1, "placed", 1))
    drain_once(SOURCE, stream, s3_lakehouse)
    apply_transform(flow, s3_lakehouse)
    assert current_rows(s3_lakehouse) == expected_rows(stream.changes)
    return s3_lakehouse


def a_day_later() -> datetime:
    return datetime.now(timezone.utc) + A_DAY


def maintained(layout: Layout, later: timedelta = A_DAY) -> MaintenanceReport:
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc) + later  # noqa: E731
    found = maintain_dataset(CURRENT, layout, clock=now)
    assert found is not None
    return found


def test_uploads_of_the_lakehouse_that_are_a_day_old_are_aborted(
    layout: Layout, uploads: Uploads
) -> None:
    root = layout.uri.removeprefix(f"s3://{BUCKET}/")
    put(layout, people((1, "a")))
    asset = f"{root}/{NAME}/part-3.parquet"
    uploads.begin(asset)
    ours = [f"{root}/current/part-1.parquet", f"{root}/_changelog/orders/bucket=0/part-2.parquet"]
    others = [f"{root}-2/current/part-1.parquet", "other/x", f"{root}/backup/of-somebody.tar"]
    for key in (*ours, *others):
        uploads.begin(key)
    report = maintained(layout, A_DAY / 2)
    assert (report.uploads_aborted, report.uploads_refused) == (0, "")
    assert sorted(uploads.keys()) == sorted([*ours, *others, asset])
    found = maintain_asset_table(layout, NAME, clock=a_day_later)
    assert found is not None
    assert found.uploads_aborted == 1
    report = maintained(layout)
    assert report.uploads_aborted == 2
    assert "aborted 2 unfinished uploads" in report.did
    assert sorted(uploads.keys()) == sorted(others)


def test_what_a_killed_process_leaves_of_a_large_file_is_aborted(
    layout: Layout, uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_files, "SINGLE_PUT_BYTES", 1 << 20)
    store = TableStore(layout.dataset("current"), layout.storage_options)
    file = store.open_output("part-large.parquet")
    for _ in range(24):
        file.write(b"x" * (1 << 20))
    assert [key.rpartition("/")[2] for key in uploads.keys()] == ["part-large.parquet"]  # noqa: SIM118
    del file  # as by a kill: an upload that nobody closes is not finished
    assert maintained(layout).uploads_aborted == 1
    assert uploads.keys() == []
    assert store.find("part-large.parquet") is None


@pytest.mark.parametrize("status", [403, 501])
def test_a_store_that_does_not_let_us_look_is_a_word_in_the_report(
    status: int, layout: Layout, uploads: Uploads, proxy: Proxy
) -> None:
    uploads.begin(f"{layout.uri.removeprefix(f's3://{BUCKET}/')}/current/part-1.parquet")
    with proxy.broken(status, times=None, kinds=["multipart"], methods=["GET"]):
        report = maintained(layout)
    assert report.uploads_aborted == 0
    code = {403: "AccessDenied", 501: "NotImplemented"}[status]
    assert report.uploads_refused == f"{code} (ListMultipartUploads)"
    assert code in report.did
    with proxy.broken(status, times=None, kinds=["multipart"], methods=["DELETE"]):
        report = maintained(layout)
    assert report.uploads_refused == f"{code} (AbortMultipartUpload)"
    assert len(uploads.keys()) == 1
