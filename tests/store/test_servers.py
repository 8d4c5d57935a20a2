"""The servers of these tests do what the tests take for granted."""

from __future__ import annotations

import time

import obstore
import pytest
from obstore.exceptions import BaseError
from obstore.store import S3Store

from datazone_dagster.delta.store import TableStore
from datazone_dagster.errors import StorageError
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, drain_once
from datazone_dagster.testing import ScriptedStream
from tests.faults.orders import SOURCE, current_rows, expected_rows, flow, order
from tests.store.proxy import Proxy, kind_of


def store_of(layout: Layout) -> TableStore:
    return TableStore(layout.uri, layout.storage_options)


def test_the_server_checks_signatures_and_conditions(s3_lakehouse: Layout, proxy: Proxy) -> None:
    store = store_of(s3_lakehouse)
    assert store.put_if_absent("a", b"1")
    assert not store.put_if_absent("a", b"2")
    assert store.read("a") == b"1"
    options = {**s3_lakehouse.storage_options, "AWS_SECRET_ACCESS_KEY": "wrong"}
    with pytest.raises(OSError, match="SignatureDoesNotMatch"):
        TableStore(s3_lakehouse.uri, options).put_if_absent("b", b"1")


def test_a_flow_is_counted_on_connections_that_are_kept(s3_lakehouse: Layout, proxy: Proxy) -> None:
    stream = ScriptedStream(shards=2)
    for number in range(10):
        stream.put(order(number, "placed", number))
    with proxy.counted() as counts:
        drain_once(SOURCE, stream, s3_lakehouse)
        apply_transform(flow, s3_lakehouse)
    assert current_rows(s3_lakehouse) == expected_rows(stream.changes)
    kinds = counts.by_kind
    assert kinds["PUT", "log entry"] >= 4
    assert kinds["PUT", "data file"] >= 2
    assert counts.connections < len(counts) / 2
    assert {one.access_key for one in counts.requests} == {"lakehouse"}
    assert proxy.counts().requests != []  # of the read


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/lake/t/_delta_log/00000000000000000001.json", "log entry"),
        ("GET", "/lake/t/_delta_log/_last_checkpoint", "last checkpoint"),
        ("GET", "/lake/t/_delta_log/00000000000000000010.checkpoint.parquet", "checkpoint"),
        ("GET", "/lake?list-type=2&prefix=t%2F_delta_log", "list"),
        ("POST", "/lake?delete", "delete many"),
        ("POST", "/lake/t/a.parquet?uploads", "multipart"),
        ("PUT", "/lake/t/a.parquet?partNumber=1&uploadId=x", "multipart"),
        ("PUT", "/lake/t/bucket%3D0/a.parquet", "data file"),
        ("GET", "/lake/t/deletion_vector_x.bin", "vectors"),
        ("PUT", "/lake/t/_delta_log/_commit_x.json.tmp", "other"),
    ],
)
def test_the_kinds_of_requests(method: str, path: str, kind: str) -> None:
    assert kind_of(method, path) == kind


def plain_store(layout: Layout) -> S3Store:
    """A store that does not retry."""
    bucket, _, prefix = layout.uri.removeprefix("s3://").partition("/")
    options = {name.lower(): value for name, value in layout.storage_options.items()}
    options.pop("aws_allow_http")
    return S3Store(
        bucket,
        prefix=prefix,
        config=options,  # type: ignore[arg-type]  # a plain dict of known names
        client_options={"allow_http": True, "timeout": "1s"},
        retry_config={"max_retries": 0},
    )


def test_faults_by_script(s3_lakehouse: Layout, proxy: Proxy) -> None:
    store = plain_store(s3_lakehouse)
    for status, code in ((403, "AccessDenied"), (500, "InternalError"), (503, "SlowDown")):
        proxy.break_requests(status, nth=2, methods=["PUT"])
        obstore.put(store, f"{status}-1", b"", use_multipart=False)
        with pytest.raises(BaseError, match=code):
            obstore.put(store, f"{status}-2", b"", use_multipart=False)
        obstore.put(store, f"{status}-3", b"", use_multipart=False)
        assert proxy.heal() == 1
    with proxy.broken("reset", after=True), pytest.raises(BaseError):
        obstore.put(store, "arrived", b"1", use_multipart=False)
    with proxy.broken("reset"), pytest.raises(BaseError):
        obstore.put(store, "lost", b"1", use_multipart=False)
    names = {one["path"] for page in obstore.list(store) for one in page}
    assert names == {f"{status}-{n}" for status in (403, 500, 503) for n in (1, 3)} | {"arrived"}


def test_requests_that_hang_and_requests_that_are_slow(s3_lakehouse: Layout, proxy: Proxy) -> None:
    store = plain_store(s3_lakehouse)
    obstore.put(store, "a", b"1", use_multipart=False)
    with proxy.broken("hang", methods=["PUT"], times=None):
        with pytest.raises(BaseError):
            obstore.put(store, "a", b"2", use_multipart=False)
        assert bytes(obstore.get(store, "a").bytes()) == b"1"
    with proxy.delayed(50):
        start = time.monotonic()
        obstore.get(store, "a")
        assert time.monotonic() - start > 0.05


def test_a_store_that_ignores_conditions(s3_lakehouse: Layout, proxy: Proxy) -> None:
    store = store_of(s3_lakehouse)
    assert store.put_if_absent("a", b"1")
    with proxy.broken("ignore condition", methods=["PUT"], times=None):
        assert store.put_if_absent("a", b"2")


def test_a_store_that_is_down_is_a_storage_error(s3_lakehouse: Layout, proxy: Proxy) -> None:
    layout = Layout(s3_lakehouse.uri, {**s3_lakehouse.storage_options, "max_retries": "0"})
    with proxy.broken(500, times=None), pytest.raises(StorageError):
        drain_once(SOURCE, ScriptedStream(), layout)
