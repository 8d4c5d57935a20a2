"""Construction of the pair of botocore clients from connection settings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
import botocore.session
from botocore.config import Config

from datazone_dagster.errors import SourceError
from datazone_dagster.model.tagged_table import TableTag
from datazone_dagster.source.assumed_role import assuming, base_session
from datazone_dagster.source.connection_settings import ConnectionSettings
from datazone_dagster.source.endpoints import is_local, is_of_aws
from datazone_dagster.source.failures import BOTO_FAILURES, Call, no_region, origin, source_error

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodbstreams import DynamoDBStreamsClient

__all__ = [
    "ClientFactory",
    "Clients",
    "ConnectionSettings",
    "KinesisClientFactory",
    "KinesisClients",
    "build_clients",
    "build_kinesis_clients",
]

_LOCAL_KEY = "local"  # an emulator requires a signature, but accepts any
_LOCAL_REGION = "us-east-1"
_TAGGING = "resourcegroupstaggingapi"

_Create = Callable[..., Any]
"""Creates a client by the name of its service; `endpoint_url` overrides that of the settings."""

_Pair = tuple[Any, Any]
"""Client of DynamoDB, and of the service that changes are read from."""


class Clients(NamedTuple):
    """The two botocore clients that read a stream. Both are thread-safe."""

    dynamodb: DynamoDBClient
    streams: DynamoDBStreamsClient


class KinesisClients(NamedTuple):
    """The two botocore clients that read a Kinesis stream. Both are thread-safe."""

    dynamodb: DynamoDBClient
    kinesis: Any  # its stubs are not among our requirements


ClientFactory = Callable[[], Clients]
KinesisClientFactory = Callable[[], KinesisClients]

_NAMES = {"dynamodbstreams": "DYNAMODB_STREAMS", "kinesis": "KINESIS"}
"""Services that changes are read from, as the environment names their endpoints."""


class Searchers(NamedTuple):
    """The two botocore clients that find tables by a tag."""

    dynamodb: Any  # the stubs of the tagging API are not among our requirements: both are plain
    tagging: Any


def build_clients(settings: ConnectionSettings, *, table_name: str = "") -> Clients:
    """Build the clients for these settings.

    No call is made, unless the search for credentials needs one (SSO, instance metadata).
    For endpoints on this machine, placeholders replace missing credentials and a missing region,
    so that an emulator needs no AWS setup. Other endpoints never get placeholders.

    Args:
        settings: Connection settings.
        table_name: DynamoDB table, for error texts.

    Raises:
        CredentialsError: The profile does not exist, or there are no credentials to assume the
            role with.
        SourceError: There is no region, an endpoint is not a URL, or only one of the two
            services is on this machine.
    """
    call = Call("Connecting", table_name, settings.region, settings.endpoint_url)
    return Clients(*_connected(settings, call)[0])


def build_kinesis_clients(settings: ConnectionSettings, *, table_name: str = "") -> KinesisClients:
    """Build the clients of DynamoDB and of Kinesis for these settings: see `build_clients`."""
    call = Call("Connecting", table_name, settings.region, settings.endpoint_url)
    return KinesisClients(*_connected(settings, call, "kinesis")[0])


def build_searchers(settings: ConnectionSettings, *, tag: TableTag) -> Searchers:
    """Build the clients that find tables by a tag, for these settings.

    An endpoint of DynamoDB that is not one of AWS, such as an emulator, also answers the tagging
    API, unless the environment names an endpoint of that API (`AWS_ENDPOINT_URL`,
    `AWS_ENDPOINT_URL_RESOURCE_GROUPS_TAGGING_API`).

    Args:
        settings: Connection settings.
        tag: Tag of the tables, for error texts.

    Raises:
        CredentialsError: As `build_clients`.
        SourceError: As `build_clients`.
    """
    call = Call("Connecting", "", settings.region, settings.endpoint_url, tag=str(tag))
    clients, create = _connected(settings, call)
    clients[1].close()
    own = clients[0].meta.endpoint_url
    if settings.endpoint_url is not None and not is_of_aws(own):
        return Searchers(clients[0], create(_TAGGING, endpoint_url=own))
    tagging = create(_TAGGING, endpoint_url=None)
    if is_of_aws(tagging.meta.endpoint_url) and not is_of_aws(own):
        tagging.close()
        tagging = create(_TAGGING, endpoint_url=own)
    return Searchers(clients[0], tagging)


def _connected(
    settings: ConnectionSettings, call: Call, service: str = "dynamodbstreams"
) -> tuple[_Pair, _Create]:
    """Return the pair of clients, and a function that creates one of another service."""
    try:
        return _build(settings, call, service)
    except BOTO_FAILURES as error:
        raise source_error(error, call) from None
    except ValueError as error:  # from botocore, for an endpoint URL of the environment
        raise SourceError(
            f"{call.summary} failed: {error}",
            hint="Check AWS_ENDPOINT_URL* and the endpoint_url of the AWS profile.",
        ) from None


def _build(settings: ConnectionSettings, call: Call, service: str) -> tuple[_Pair, _Create]:
    core = base_session(settings)
    region = settings.region or core.get_config_variable("region")
    # Only a client knows its endpoint. Placeholders make this pair possible without credentials.
    unsigned = _creator(core, settings, region or _LOCAL_REGION, with_placeholder=True)
    placeholder = _clients(unsigned, service)
    endpoints = [client.meta.endpoint_url for client in placeholder]
    local = [is_local(url) for url in endpoints]
    if any(local) and not all(local):
        raise SourceError(
            f"Connecting to {call.subject}: DynamoDB is at {origin(endpoints[0])}, but "
            f"its changes are at {origin(endpoints[1])}. Only one of them is on this machine.",
            hint="Set AWS_ENDPOINT_URL, or both AWS_ENDPOINT_URL_DYNAMODB and "
            f"AWS_ENDPOINT_URL_{_NAMES[service]}.",
        )
    if settings.role_arn is not None:
        core = assuming(core, settings, region, client_config(settings))
    elif all(local):
        # No emulator needs instance credentials, and the search for them takes seconds.
        core.get_component("credential_provider").remove("iam-role")
        if core.get_credentials() is None:
            return placeholder, unsigned
    if region is None:
        if not all(local):
            raise no_region(call)
        region = _LOCAL_REGION
    create = _creator(core, settings, region)
    return _clients(create, service), create


def _clients(create: _Create, service: str) -> _Pair:
    return create("dynamodb"), create(service)


def _creator(
    core: botocore.session.Session,
    settings: ConnectionSettings,
    region: str,
    *,
    with_placeholder: bool = False,
) -> _Create:
    key = _LOCAL_KEY if with_placeholder else None
    session = boto3.Session(botocore_session=core)
    return partial(
        session.client,
        region_name=region,
        endpoint_url=settings.endpoint_url,
        use_ssl=settings.use_ssl,
        verify=settings.verify,
        aws_access_key_id=key,
        aws_secret_access_key=key,
        config=client_config(settings),
    )


def client_config(settings: ConnectionSettings) -> Config:
    """Return the botocore `Config` for these settings."""
    mode = settings.account_id_endpoint_mode
    if mode is None and settings.endpoint_url is not None:
        mode = "disabled"
    return Config(
        connect_timeout=settings.connect_timeout_seconds,
        read_timeout=settings.read_timeout_seconds,
        retries={"mode": settings.retry_mode, "total_max_attempts": settings.max_attempts},
        max_pool_connections=settings.max_pool_connections,
        account_id_endpoint_mode=mode,
        user_agent_extra="datazone-dagster",
    )
