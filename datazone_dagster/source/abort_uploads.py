"""Unfinished multipart uploads of S3: listed and aborted, which obstore can't.

A process that is killed while it uploads a large file leaves the parts. They are in no listing of
files, and are paid for until the upload is aborted.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from datazone_dagster.model.store_uploads import AbortedUploads, UploadsFolder

ABORTED_MOST = 1000
"""Uploads that are aborted at once, one request each; the next maintenance goes on."""

_GONE = "NoSuchUpload"
_NO_CODE = "no code"


def abort_uploads(folder: UploadsFolder, before: datetime) -> AbortedUploads:
    """Abort the uploads of a folder that began before a time.

    No failure is raised: uploads that stay cost money, and nothing else depends on them.
    """
    aborted = 0
    payer = {"RequestPayer": "requester"} if folder.requester_pays else {}
    try:
        client = _client(folder)
        pages = client.get_paginator("list_multipart_uploads").paginate(
            Bucket=folder.bucket, Prefix=folder.prefix, **payer
        )
        for page in pages:
            for upload in page.get("Uploads", ()):
                table = upload["Key"][len(folder.prefix) :].partition("/")[0]
                is_old = upload["Initiated"] < before and table in folder.tables
                if not is_old or aborted >= ABORTED_MOST:
                    continue
                aborted += _aborted(client, folder, upload, payer)
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", _NO_CODE))
        return AbortedUploads(aborted, f"{code} ({error.operation_name})")
    except (BotoCoreError, ValueError) as error:
        return AbortedUploads(aborted, type(error).__name__)
    return AbortedUploads(aborted)


def _aborted(client: Any, folder: UploadsFolder, upload: Any, payer: dict[str, str]) -> int:
    try:
        client.abort_multipart_upload(
            Bucket=folder.bucket, Key=upload["Key"], UploadId=upload["UploadId"], **payer
        )
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != _GONE:
            raise
        return 0
    return 1


def _client(folder: UploadsFolder) -> Any:
    found = folder.credentials
    style: Literal["virtual", "path"] = "virtual" if folder.is_virtual_hosted else "path"
    return botocore.session.Session().create_client(
        "s3",
        region_name=folder.region,
        endpoint_url=folder.endpoint_url,
        aws_access_key_id=found.access_key_id,
        aws_secret_access_key=found.secret_access_key,
        aws_session_token=found.session_token,
        config=Config(
            s3={"addressing_style": style},
            connect_timeout=5,
            read_timeout=20,
            retries={"mode": "standard", "total_max_attempts": 2},
            user_agent_extra="datazone-dagster",
        ),
    )
