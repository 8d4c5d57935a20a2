"""The export client: what it asks for, and the errors of the service."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from datazone_dagster.errors import (
    AccessDeniedError,
    ExportError,
    TableNotFoundError,
    ThrottledError,
)
from datazone_dagster.model.table_export import ExportRequest
from datazone_dagster.source.export_client import BotoExportClient
from datazone_dagster.source.session import Clients
from tests.source.scripted import ScriptedService, error, ok

ARN = "arn:aws:dynamodb:us-west-2:123456789012:table/orders"
AT = datetime(2026, 11, 28, 5, tzinfo=timezone.utc)
FULL = ExportRequest("bucket", "", AT, None, "token")


@pytest.fixture
def client(service: ScriptedService, once: Clients) -> BotoExportClient:
    service.script("DescribeTable", ok({"Table": {"TableArn": ARN}}))
    return BotoExportClient("orders", once)


def test_a_failed_export(service: ScriptedService, client: BotoExportClient) -> None:
    described = {
        "ExportArn": f"{ARN}/export/1-a",
        "ExportStatus": "FAILED",
        "FailureCode": "S3AccessDenied",
        "FailureMessage": "no",
    }
    service.script("ExportTableToPointInTime", ok({"ExportDescription": described}))
    found = client.start_export(FULL)
    assert (found.is_over, found.failure) == (True, "S3AccessDenied: no")


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("PointInTimeRecoveryUnavailableException", ExportError, "update-continuous-backups"),
        ("InvalidExportTimeException", ExportError, "35 days"),
        ("AccessDeniedException", AccessDeniedError, "dynamodb:ExportTableToPointInTime on table/"),
        ("AccessDeniedException", AccessDeniedError, "s3:PutObject"),
        ("TableNotFoundException", TableNotFoundError, "table_name and region"),
        ("LimitExceededException", ThrottledError, ""),
    ],
)
def test_errors_of_a_start(
    service: ScriptedService,
    client: BotoExportClient,
    code: str,
    kind: type[Exception],
    words: str,
) -> None:
    service.script("ExportTableToPointInTime", error(code))
    with pytest.raises(kind) as caught:
        client.start_export(FULL)
    assert words in str(caught.value)


def test_errors_of_a_look(service: ScriptedService, client: BotoExportClient) -> None:
    service.script(
        "DescribeExport",
        error("AccessDeniedException"),
        error("ExportNotFoundException"),
    )
    with pytest.raises(AccessDeniedError, match=r"dynamodb:DescribeExport on table/orders/export/"):
        client.export_progress(f"{ARN}/export/1-a")
    with pytest.raises(ExportError, match="does not know the export"):
        client.export_progress(f"{ARN}/export/1-a")
