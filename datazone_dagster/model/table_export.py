"""Exports of a table to S3: nouns and protocol of starting one and waiting for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

PRICE_GB = 0.10
"""Price of a full export per GB of table in us-east-1, in US dollars."""


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """An export to start.

    Args:
        bucket: S3 bucket.
        prefix: Prefix of its keys; empty for none.
        to_time: Time of which a full export shows the state, or end of the window of an
            incremental one, exclusive.
        from_time: First moment of the window; None for a full export.
        token: Token of the request: the same one starts no second export within 8 hours.
    """

    bucket: str
    prefix: str
    to_time: datetime
    from_time: datetime | None
    token: str


@dataclass(frozen=True, slots=True)
class ExportProgress:
    """An export, as DescribeExport shows it.

    Args:
        arn: ARN of the export.
        status: `IN_PROGRESS`, `COMPLETED` or `FAILED`.
        bucket: S3 bucket.
        manifest_key: S3 key of `manifest-summary.json`; empty before the export is completed.
        failure: Code and message of a failed export; empty otherwise.
    """

    arn: str
    status: str
    bucket: str = ""
    manifest_key: str = ""
    failure: str = ""

    @property
    def is_over(self) -> bool:
        """Whether the export is completed or has failed."""
        return self.status != "IN_PROGRESS"


class ExportClient(Protocol):
    """Starts exports of one table, and looks at them. Raises `SourceError` subclasses only."""

    def start_export(self, request: ExportRequest) -> ExportProgress:
        """Start an export; the same token returns the export that it started before.

        Raises:
            AccessDeniedError: The IAM action dynamodb:ExportTableToPointInTime is missing.
            ExportError: Point-in-time recovery is off, or does not reach the times asked for.
            TableNotFoundError: The table does not exist.
        """
        ...

    def export_progress(self, arn: str) -> ExportProgress:
        """Return the state of an export.

        Raises:
            AccessDeniedError: The IAM action dynamodb:DescribeExport is missing.
            ExportError: The service does not know the export.
        """
        ...
