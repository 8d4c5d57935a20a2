"""Export client for DynamoDB, or for any service that implements its API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError

from datazone_dagster.errors import ExportError
from datazone_dagster.model.table_export import ExportProgress, ExportRequest
from datazone_dagster.source.failures import Call, translated
from datazone_dagster.source.session import ClientFactory, Clients
from datazone_dagster.text import shown

_NO_RECOVERY = "PointInTimeRecoveryUnavailableException"
_TIMES = "InvalidExportTimeException"
_UNKNOWN = "ExportNotFoundException"


class BotoExportClient:
    """`ExportClient` of `model.table_export`, on botocore.

    Args:
        table_name: Name or ARN of the table.
        clients: Pair of clients, or a function that builds it; called once, on first use.
        role_arn: Role that the clients assume, for error texts.
    """

    def __init__(
        self, table_name: str, clients: Clients | ClientFactory, *, role_arn: str | None = None
    ) -> None:
        self.table_name = table_name
        self._factory = clients
        self._role_arn = role_arn
        self._clients: Clients | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.table_name!r})"

    def start_export(self, request: ExportRequest) -> ExportProgress:
        """See `ExportClient`."""
        asked: dict[str, Any] = {
            "TableArn": self._table_arn(),
            "S3Bucket": request.bucket,
            "ExportFormat": "DYNAMODB_JSON",
            "ClientToken": request.token,
        }
        if request.prefix:
            asked["S3Prefix"] = request.prefix
        if request.from_time is None:
            asked["ExportTime"] = request.to_time
        else:
            asked["ExportType"] = "INCREMENTAL_EXPORT"
            asked["IncrementalExportSpecification"] = {
                "ExportFromTime": request.from_time,
                "ExportToTime": request.to_time,
                "ExportViewType": "NEW_IMAGE",
            }
        call = self._call("ExportTableToPointInTime")
        ask: Any = self._connected().dynamodb.export_table_to_point_in_time
        with translated(call), _refused(call):
            return _progress(ask(**asked)["ExportDescription"])

    def export_progress(self, arn: str) -> ExportProgress:
        """See `ExportClient`."""
        call = self._call("DescribeExport")
        ask: Any = self._connected().dynamodb.describe_export
        with translated(call), _refused(call):
            return _progress(ask(ExportArn=arn)["ExportDescription"])

    def close(self) -> None:
        """Close the HTTP connections. The client must not be used afterwards."""
        if self._clients is not None:
            for client in self._clients:
                client.close()

    def _table_arn(self) -> str:
        """Return the ARN: the service takes no name here."""
        if self.table_name.startswith("arn:"):
            return self.table_name
        ask: Any = self._connected().dynamodb.describe_table
        with translated(self._call("DescribeTable")):
            arn: str = ask(TableName=self.table_name)["Table"]["TableArn"]
        return arn

    def _connected(self) -> Clients:
        if self._clients is None:
            factory = self._factory
            self._clients = factory if isinstance(factory, Clients) else factory()
        return self._clients

    def _call(self, operation: str) -> Call:
        meta = self._connected().dynamodb.meta
        return Call(
            operation,
            self.table_name,
            meta.region_name,
            meta.endpoint_url,
            role_arn=self._role_arn,
        )


def _progress(found: Any) -> ExportProgress:
    failure = ": ".join(filter(None, (found.get("FailureCode"), found.get("FailureMessage"))))
    return ExportProgress(
        found["ExportArn"],
        found["ExportStatus"],
        found.get("S3Bucket", ""),
        found.get("ExportManifest", ""),
        shown(failure, 300),
    )


@contextmanager
def _refused(call: Call) -> Iterator[None]:
    """Raise what only exports are refused for.

    Raises:
        ExportError: Point-in-time recovery is off or does not reach as far, or there is no such
            export.
    """
    try:
        yield
    except ClientError as error:
        details = error.response.get("Error", {})
        code, message = details.get("Code", ""), shown(details.get("Message", ""), 300)
        if code not in (_NO_RECOVERY, _TIMES, _UNKNOWN):
            raise
        what, hint = _WORDS[code]
        raise ExportError(
            f"{call.summary}: {what}" + (f": {message}." if code == _TIMES else "."),
            safe="Nothing was started: no export, no cost." if code != _UNKNOWN else "",
            hint=hint.format(table=call.table_name),
        ) from None


_WORDS = {
    _NO_RECOVERY: (
        "point-in-time recovery of the table is off, and an export needs it",
        "Switch it on (AWS bills it by the size of the table): aws dynamodb "
        "update-continuous-backups --table-name {table} --point-in-time-recovery-specification "
        "PointInTimeRecoveryEnabled=true. It remembers from then on: it can't show a window that "
        "was lost before. Without it, a scan repairs the datasets: datazone-dagster resync.",
    ),
    _TIMES: (
        "point-in-time recovery does not reach the times asked for",
        "It reaches 35 days at most, and not before the moment it was switched on. A full export "
        "or a scan (datazone-dagster resync) shows the table as it is now.",
    ),
    _UNKNOWN: (
        "the service does not know the export",
        "It lists exports of the last 90 days. If the files are there, give their location: "
        "--from URI.",
    ),
}
