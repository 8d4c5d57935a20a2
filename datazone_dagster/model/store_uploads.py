"""Protocol between maintenance and whoever can abort unfinished multipart uploads. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from datazone_dagster.model.store_identity import StoreCredentials


@dataclass(frozen=True, slots=True)
class UploadsFolder:
    """A folder of an S3 bucket, and how requests reach it.

    Args:
        bucket: Name of the bucket.
        prefix: What the keys below the folder begin with; empty for the whole bucket.
        tables: Names of the folders below that are ours; uploads elsewhere are somebody else's.
        region: Region that requests are signed for.
        endpoint_url: Endpoint of S3, without the bucket.
        credentials: Present credentials.
        is_virtual_hosted: Whether the bucket is in the host name.
        requester_pays: Whether requests agree to pay.
    """

    bucket: str
    prefix: str
    tables: frozenset[str]
    region: str
    endpoint_url: str
    credentials: StoreCredentials
    is_virtual_hosted: bool = False
    requester_pays: bool = False


@dataclass(frozen=True, slots=True)
class AbortedUploads:
    """Uploads that were aborted, and the store's code where it refused; empty: it did not."""

    count: int = 0
    refused: str = ""


AbortUploads = Callable[[UploadsFolder, datetime], AbortedUploads]
"""Aborts the uploads of a folder that began before a time."""
