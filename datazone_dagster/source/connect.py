"""Clients by the name of a table. boto3 is loaded on first use, not here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial

from datazone_dagster.model.protocols import StreamClient
from datazone_dagster.model.store_identity import StoreAccess
from datazone_dagster.model.store_uploads import AbortedUploads, UploadsFolder
from datazone_dagster.model.table_export import ExportClient
from datazone_dagster.model.table_scan import TableClient
from datazone_dagster.source.connection_settings import ConnectionSettings


def connect(
    table_name: str,
    settings: ConnectionSettings,
    *,
    ask_for_gzip: bool = False,
    stream_name: str | None = None,
) -> StreamClient:
    """Return a client for the streams of a table. It connects on first use, not here.

    Args:
        table_name: Name of the DynamoDB table.
        settings: Region, endpoint, credentials, retries and timeouts.
        ask_for_gzip: Whether the service should compress its answers; Kinesis never does.
        stream_name: Kinesis stream that the table sends its changes to; None: the table's own
            streams are read.
    """
    # Loading boto3 takes a third of a second: processes that read no stream don't load it.
    if stream_name is not None:
        from datazone_dagster.source.kinesis_client import KinesisStreamClient
        from datazone_dagster.source.session import build_kinesis_clients

        return KinesisStreamClient(
            table_name,
            stream_name,
            partial(build_kinesis_clients, settings, table_name=table_name),
            role_arn=settings.role_arn,
        )
    from datazone_dagster.source.client import BotoStreamClient
    from datazone_dagster.source.session import build_clients

    return BotoStreamClient(
        table_name,
        partial(build_clients, settings, table_name=table_name),
        role_arn=settings.role_arn,
        ask_for_gzip=ask_for_gzip,
    )


def connect_table(table_name: str, settings: ConnectionSettings) -> TableClient:
    """Return a client for the items of a table: scans and single items, not its stream.

    It connects on first use, not here.

    Args:
        table_name: Name or ARN of the DynamoDB table.
        settings: Region, endpoint, credentials, retries and timeouts.
    """
    from datazone_dagster.source.session import build_clients
    from datazone_dagster.source.table_client import BotoTableClient

    return BotoTableClient(
        table_name,
        partial(build_clients, settings, table_name=table_name),
        role_arn=settings.role_arn,
    )


def connect_exports(table_name: str, settings: ConnectionSettings) -> ExportClient:
    """Return a client that starts exports of a table to S3. It connects on first use, not here.

    Args:
        table_name: Name or ARN of the DynamoDB table.
        settings: Region, endpoint, credentials, retries and timeouts.
    """
    from datazone_dagster.source.export_client import BotoExportClient
    from datazone_dagster.source.session import build_clients

    return BotoExportClient(
        table_name,
        partial(build_clients, settings, table_name=table_name),
        role_arn=settings.role_arn,
    )


def connect_store(options: Mapping[str, str]) -> StoreAccess:
    """Return the access to an S3 store that canonical storage options ask for.

    Raises:
        DefinitionError: The role is no ARN.
        StorageError: The profile does not exist, or the endpoint is not a URL.
    """
    from datazone_dagster.source.store_credentials import store_access

    return store_access(options)


def connect_uploads(folder: UploadsFolder, before: datetime) -> AbortedUploads:
    """Abort the unfinished multipart uploads of a folder that began before a time."""
    from datazone_dagster.source.abort_uploads import abort_uploads

    return abort_uploads(folder, before)
