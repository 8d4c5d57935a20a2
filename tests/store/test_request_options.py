"""Options about single requests reach every library that makes some."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import pytest

from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, drain_once, maintain_dataset
from datazone_dagster.testing import ScriptedStream
from tests.faults.orders import SOURCE, current_rows, expected_rows, flow, order
from tests.store.proxy import Proxy, Request
from tests.store.servers import BUCKET

KEY = "arn:aws:kms:us-east-1:123456789012:key/1234"


def flow_with(options: Mapping[str, str]) -> None:
    layout = Layout(f"s3://{BUCKET}/{uuid.uuid4().hex}", options)
    stream = ScriptedStream()
    for status in ("placed", "paid"):
        for number in range(3):
            stream.put(order(number, status, number))
        drain_once(SOURCE, stream, layout)
        apply_transform(flow, layout)
    for dataset in flow.outputs.values():
        maintain_dataset(dataset, layout)
    assert current_rows(layout) == expected_rows(stream.changes)


def writes(request: Request) -> bool:
    """Whether a request makes an object: a PUT, or the start of a multipart upload."""
    starts = request.method == "POST" and "uploads" in request.path
    return starts or (request.method == "PUT" and request.kind != "multipart")


@pytest.mark.parametrize(
    ("options", "headers"),
    [
        ({"AWS_SERVER_SIDE_ENCRYPTION": "AES256"}, {"x-amz-server-side-encryption": "AES256"}),
        (
            {
                "server_side_encryption": "aws:kms",
                "AWS_SSE_KMS_KEY_ID": KEY,
                "sse_bucket_key_enabled": "true",
            },
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": KEY,
                "x-amz-server-side-encryption-bucket-key-enabled": "true",
            },
        ),
    ],
    ids=["AES256", "KMS"],
)
def test_encryption_goes_with_every_write(
    options: dict[str, str], headers: dict[str, str], s3_options: dict[str, str], proxy: Proxy
) -> None:
    with proxy.counted() as counts:
        flow_with({**s3_options, **options})
    made = [one for one in counts.requests if writes(one)]
    assert {one.kind for one in made} >= {"log entry", "data file", "checkpoint"}
    assert [one for one in made if headers.items() - one.headers.items()] == []


def test_the_requester_pays_for_every_request(s3_options: dict[str, str], proxy: Proxy) -> None:
    with proxy.counted() as counts:
        flow_with({**s3_options, "AWS_REQUEST_PAYER": "requester"})
    payers = {one.headers.get("x-amz-request-payer") for one in counts.requests}
    assert payers == {"requester"}
