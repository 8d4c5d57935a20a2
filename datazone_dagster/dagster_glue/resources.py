"""The Dagster resources: how DynamoDB is reached, and where the tables are."""

# No postponed annotations here: Dagster and Pydantic read the real ones when the class is made.
# Nor Literal: Dagster has no config type for it, so names are checked by validators.

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dagster import ConfigurableResource, EnvVar
from dagster_aws.utils import ResourceWithBoto3Configuration
from pydantic import Field, field_validator

from datazone_dagster.model.layout import Layout

if TYPE_CHECKING:
    from datazone_dagster.api import Dataset
    from datazone_dagster.dataset.read_dataset import DatasetReader
    from datazone_dagster.source.client import BotoStreamClient
    from datazone_dagster.source.connection_settings import (
        AccountIdEndpointMode,
        ConnectionSettings,
        RetryMode,
    )

LAKEHOUSE_URI_VARIABLE = "DATAZONE_LAKEHOUSE_URI"
DEFAULT_LAKEHOUSE = ".datazone/lakehouse"


def _one_of(value: str, allowed: tuple[str, ...]) -> str:
    # What a variable holds is known, and checked, when the settings are made.
    if not isinstance(value, EnvVar) and value not in allowed:
        raise ValueError(f"{value!r} is not one of {', '.join(allowed)}")
    return value


class DynamoDBStreamsResource(ResourceWithBoto3Configuration):
    """How DynamoDB and its streams are reached.

    Everything is optional: what is not set comes from the environment and the AWS profile,
    as with any AWS tool. An endpoint on this machine needs neither credentials nor region.
    A source's own region and endpoint win over those of the resource.

    Example:
        ```python
        DynamoDBStreamsResource(
            region_name="us-west-2",
            role_to_assume="arn:aws:iam::123456789012:role/orders-stream-reader",
        )
        ```
    """

    max_attempts: int = Field(
        default=3,
        ge=1,
        description="Attempts per call, the first one included. With the default timeouts, 3 "
        "keep the worst call at about 30 seconds, half of a sensor tick.",
    )
    retry_mode: str = Field(
        default="standard",
        description="'standard' tries again after a random wait that doubles; 'adaptive' also "
        "slows down by itself while the service throttles.",
    )
    connect_timeout_seconds: float = Field(
        default=5.0, gt=0, le=60, description="Seconds to wait for a connection."
    )
    read_timeout_seconds: float = Field(
        default=10.0, gt=0, le=60, description="Seconds to wait for an answer."
    )
    role_to_assume: str | None = Field(
        default=None,
        description="ARN of an IAM role to assume through STS; its credentials renew themselves.",
    )
    role_session_name: str = Field(
        default="datazone-dagster", description="Name of the role's session in CloudTrail."
    )
    external_id: str | None = Field(
        default=None,
        repr=False,
        description="External id that the role's trust policy asks for.",
    )
    account_id_endpoint_mode: str | None = Field(
        default=None,
        description="Whether calls go to the account's own endpoint. Unset: botocore's default, "
        "and 'disabled' with an endpoint_url. Proxies that know only the regional host need "
        "'disabled'.",
    )
    ask_for_gzip: bool = Field(
        default=False,
        description="Let the service compress what it sends: about a fifth of the bytes, for "
        "half again the CPU of a drain. For slow or metered networks.",
    )
    aws_access_key_id: str | None = Field(
        default=None, repr=False, description="AWS access key id; better an EnvVar or a role."
    )
    aws_secret_access_key: str | None = Field(
        default=None, repr=False, description="AWS secret access key; better an EnvVar or a role."
    )
    aws_session_token: str | None = Field(
        default=None, repr=False, description="Session token of temporary credentials."
    )

    @field_validator("retry_mode", mode="before")
    @classmethod
    def _known_retry_mode(cls, value: str) -> str:
        return _one_of(value, ("standard", "adaptive"))

    @field_validator("account_id_endpoint_mode", mode="before")
    @classmethod
    def _known_endpoint_mode(cls, value: str | None) -> str | None:
        return value and _one_of(value, ("preferred", "disabled", "required"))

    def connection_settings(
        self,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        max_pool_connections: int = 16,
    ) -> "ConnectionSettings":
        """The settings of this resource; arguments that are given win.

        Raises:
            DefinitionError: A value is out of its range.
        """
        from datazone_dagster.source.connection_settings import ConnectionSettings

        return ConnectionSettings(
            region=region or self.region_name,
            endpoint_url=endpoint_url or self.endpoint_url,
            profile_name=self.profile_name,
            max_attempts=self.max_attempts,
            retry_mode=cast("RetryMode", self.retry_mode),
            connect_timeout_seconds=self.connect_timeout_seconds,
            read_timeout_seconds=self.read_timeout_seconds,
            role_arn=self.role_to_assume,
            role_session_name=self.role_session_name,
            external_id=self.external_id,
            account_id_endpoint_mode=cast(
                "AccountIdEndpointMode | None", self.account_id_endpoint_mode
            ),
            aws_access_key_id=self.aws_access_key_id,
            aws_secret_access_key=self.aws_secret_access_key,
            aws_session_token=self.aws_session_token,
            max_pool_connections=max_pool_connections,
            use_ssl=self.use_ssl,
            # An explicit True would make botocore ignore AWS_CA_BUNDLE.
            verify=False if self.verify is False else None,
        )

    def stream_client(
        self,
        table_name: str,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        max_pool_connections: int = 16,
    ) -> "BotoStreamClient":
        """A client for the streams of a table. It connects on first use, not here.

        Args:
            table_name: The DynamoDB table.
            region: The source's own region, if it has one.
            endpoint_url: The source's own endpoint, if it has one.
            max_pool_connections: HTTP connections to keep: the shards read at a time.

        Raises:
            DefinitionError: A value is out of its range.
        """
        from datazone_dagster.source.client import BotoStreamClient
        from datazone_dagster.source.session import build_clients

        settings = self.connection_settings(
            region=region,
            endpoint_url=endpoint_url,
            max_pool_connections=max_pool_connections,
        )
        return BotoStreamClient(
            table_name,
            partial(build_clients, settings, table_name=table_name),
            role_arn=settings.role_arn,
            ask_for_gzip=self.ask_for_gzip,
        )


class Lakehouse(ConfigurableResource[Any]):
    """Where the tables are: the root of datasets, change logs and checkpoints.

    Example:
        ```python
        Lakehouse(uri="s3://acme-lake/orders", storage_options={"AWS_REGION": "us-west-2"})
        ```
    """

    uri: str | None = Field(
        default=None,
        description="A directory or an object store URI (s3://, gs://, abfss://). Unset: the "
        f"variable {LAKEHOUSE_URI_VARIABLE}, else {DEFAULT_LAKEHOUSE} in the working directory.",
    )
    storage_options: dict[str, str] = Field(
        default_factory=dict,
        repr=False,
        description="Settings of the object store, in the names of delta-rs, such as "
        "AWS_REGION. Credentials are better left to the environment, or given as EnvVar.",
    )

    @property
    def layout(self) -> Layout:
        """The places of all tables. A local directory is made absolute here, at use."""
        uri = self.uri or os.environ.get(LAKEHOUSE_URI_VARIABLE) or DEFAULT_LAKEHOUSE
        if "://" not in uri:
            uri = str(Path(uri).expanduser().absolute())
        return Layout(uri, dict(self.storage_options))

    def read(self, dataset: "Dataset | str", version: int | None = None) -> "DatasetReader":
        """A dataset to read as Arrow, Polars, pandas or DuckDB, whatever its files are like.

        Args:
            dataset: It, or its id.
            version: Of its table; the default is the newest.

        Raises:
            StorageError: There is no such table or version, or it can't be read.

        Example:
            ```python
            Lakehouse().read("processed_orders").pl(columns=["order_id"], where="status = 'paid'")
            ```
        """
        from datazone_dagster.pipeline import open_dataset

        dataset_id = dataset if isinstance(dataset, str) else dataset.id
        return open_dataset(self.layout, dataset_id, version)
