"""Dagster resources: the connection to DynamoDB and the location of the tables."""

# No postponed annotations here: Dagster and Pydantic evaluate them when the class is created.
# No Literal either: Dagster has no config type for it, so validators check the names.

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dagster import ConfigurableResource, EnvVar
from dagster_aws.utils import ResourceWithBoto3Configuration
from pydantic import Field, field_validator, model_validator

from datazone_dagster.api.calls import explained_class
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.store_options import (
    EXTERNAL_ID,
    PROFILE,
    ROLE_ARN,
    ROLE_SESSION_NAME,
    check_names,
    checked_options,
    plain_secrets,
)

if TYPE_CHECKING:
    from datazone_dagster.api import Dataset
    from datazone_dagster.model.protocols import StreamClient
    from datazone_dagster.model.table_scan import TableClient
    from datazone_dagster.pipeline import (
        AccountIdEndpointMode,
        ConnectionSettings,
        DatasetReader,
        RetryMode,
    )

LAKEHOUSE_URI_VARIABLE = "DATAZONE_LAKEHOUSE_URI"
DEFAULT_LAKEHOUSE = ".datazone/lakehouse"


def _one_of(value: str, allowed: tuple[str, ...]) -> str:
    # The value of a variable is known only when the settings are built, and checked there.
    if not isinstance(value, EnvVar) and value not in allowed:
        raise ValueError(f"{value!r} is not one of {', '.join(allowed)}")
    return value


@explained_class(
    'DynamoDBStreamsResource(region_name="us-west-2")', {"region": "Perhaps region_name= is meant."}
)
class DynamoDBStreamsResource(ResourceWithBoto3Configuration):
    """Connection to DynamoDB and its streams.

    Every field is optional: unset ones come from the environment and the AWS profile, as in any
    AWS tool. Fields also accept `EnvVar`. An endpoint on this machine needs neither credentials
    nor a region. The region and the endpoint of a source override those of the resource.

    The fields of dagster-aws resources are `region_name`, `endpoint_url`, `profile_name`,
    `use_ssl` and `verify`; those of this class carry a description each.

    Raises:
        DefinitionError: A field is unknown.
        pydantic.ValidationError: A value is out of range or not one of the allowed values.

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
        description="Attempts per call, the first one included; at least 1. With the default "
        "timeouts, 3 limit the worst call to about 30 seconds, half of a sensor tick.",
    )
    retry_mode: str = Field(
        default="standard",
        description="'standard' retries after a random wait whose bound doubles; 'adaptive' also "
        "slows down by itself while the service throttles.",
    )
    connect_timeout_seconds: float = Field(
        default=5.0, gt=0, le=60, description="Seconds to wait for a connection, up to 60."
    )
    read_timeout_seconds: float = Field(
        default=10.0, gt=0, le=60, description="Seconds to wait for a response, up to 60."
    )
    role_to_assume: str | None = Field(
        default=None,
        description="ARN of an IAM role to assume through STS; its credentials are renewed before "
        "they expire.",
    )
    role_session_name: str = Field(
        default="datazone-dagster", description="Name of the role's session in CloudTrail."
    )
    external_id: str | None = Field(
        default=None,
        repr=False,
        description="External id, if the role's trust policy requires one.",
    )
    account_id_endpoint_mode: str | None = Field(
        default=None,
        description="Whether calls go to the account's own endpoint: 'preferred', 'disabled' or "
        "'required'. Unset: botocore's default, or 'disabled' with an endpoint_url. Proxies that "
        "know only the regional host need 'disabled'.",
    )
    ask_for_gzip: bool = Field(
        default=False,
        description="Whether the service may compress its responses: about a fifth of the bytes, "
        "for half again the CPU of a drain. For slow or metered networks.",
    )
    aws_access_key_id: str | None = Field(
        default=None,
        repr=False,
        description="AWS access key id; prefer an EnvVar or a role over a literal.",
    )
    aws_secret_access_key: str | None = Field(
        default=None,
        repr=False,
        description="AWS secret access key; prefer an EnvVar or a role over a literal.",
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
        """Return the connection settings of this resource.

        Args:
            region: AWS region; overrides `region_name`.
            endpoint_url: Endpoint of both services; overrides that of the resource.
            max_pool_connections: HTTP connections per client, which is the number of shards read
                at a time; at least 1.

        Raises:
            DefinitionError: A value is out of range.
        """
        from datazone_dagster.pipeline import ConnectionSettings

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
        stream_name: str | None = None,
    ) -> "StreamClient":
        """Return a client for the streams of a table. It connects on first use, not here.

        Args:
            table_name: DynamoDB table.
            region: AWS region; overrides `region_name`.
            endpoint_url: Endpoint of both services; overrides that of the resource.
            max_pool_connections: HTTP connections per client, which is the number of shards read
                at a time; at least 1.
            stream_name: Kinesis stream that the table sends its changes to; None: its own streams.

        Raises:
            DefinitionError: A value is out of range.
        """
        from datazone_dagster.pipeline import connect

        settings = self.connection_settings(
            region=region,
            endpoint_url=endpoint_url,
            max_pool_connections=max_pool_connections,
        )
        return connect(
            table_name, settings, ask_for_gzip=self.ask_for_gzip, stream_name=stream_name
        )

    def table_client(
        self, table_name: str, *, region: str | None = None, endpoint_url: str | None = None
    ) -> "TableClient":
        """Return a client for the items of a table. It connects on first use, not here.

        Args:
            table_name: DynamoDB table.
            region: AWS region; overrides `region_name`.
            endpoint_url: Endpoint of the table; overrides that of the resource.

        Raises:
            DefinitionError: A value is out of range.
        """
        from datazone_dagster.pipeline import connect_table

        settings = self.connection_settings(region=region, endpoint_url=endpoint_url)
        return connect_table(table_name, settings)


@explained_class(
    'Lakehouse(uri="s3://acme-lake/orders")',
    dict.fromkeys(("path", "root", "location", "url"), "Perhaps uri= is meant."),
)
class Lakehouse(ConfigurableResource[Any]):
    """Location of the tables: the root of datasets, change logs, checkpoints and quarantines.

    Fields also accept `EnvVar`. Nothing is opened or created until a table is used.

    Credentials of S3 are those of botocore, once per process and renewed before they expire:
    keys in `storage_options`, else `profile_name` and `role_to_assume`, else the environment,
    the AWS profile, the container or the instance.

    Raises:
        DefinitionError: A field is unknown.
        pydantic.ValidationError: An option is unknown, refused, or contradicts another one.

    Example:
        ```python
        Lakehouse(uri="s3://acme-lake/orders", storage_options={"AWS_REGION": "us-west-2"})
        ```
    """

    uri: str | None = Field(
        default=None,
        description="Directory or object store URI (s3://, gs://, abfss://). Unset: the "
        f"environment variable {LAKEHOUSE_URI_VARIABLE}, else {DEFAULT_LAKEHOUSE} in the working "
        "directory.",
    )
    storage_options: dict[str, str] = Field(
        default_factory=dict,
        repr=False,
        description="Settings of the object store, under delta-rs' names, such as AWS_REGION. "
        "Leave credentials to the environment, or pass them as EnvVar.",
    )
    profile_name: str | None = Field(
        default=None, description="Profile of ~/.aws/config for an S3 lakehouse."
    )
    role_to_assume: str | None = Field(
        default=None,
        description="ARN of an IAM role to assume through STS for an S3 lakehouse; its credentials "
        "are renewed before they expire.",
    )
    role_session_name: str | None = Field(
        default=None,
        description="Name of the role's session in CloudTrail; datazone-dagster if unset.",
    )
    external_id: str | None = Field(
        default=None,
        repr=False,
        description="External id, if the role's trust policy requires one.",
    )

    @model_validator(mode="after")
    def _known_options(self) -> "Lakehouse":
        options = self._options()
        uri = "" if self.uri is None or isinstance(self.uri, EnvVar) else self.uri
        if any(isinstance(value, EnvVar) for value in (self.uri, *options.values())):
            check_names(uri or "s3://", options)
        elif uri:
            Layout(uri, options)
        else:
            checked_options("s3://", options)
        return self

    def _options(self) -> dict[str, str]:
        """Return the storage options, with profile and role among them."""
        named = {
            PROFILE: self.profile_name,
            ROLE_ARN: self.role_to_assume,
            ROLE_SESSION_NAME: self.role_session_name,
            EXTERNAL_ID: self.external_id,
        }
        return {**self.storage_options, **{name: one for name, one in named.items() if one}}

    def at(self, uri: str) -> "Lakehouse":
        """Return a lakehouse at another location, with the same options and identity."""
        fields = type(self).model_fields
        return Lakehouse(**{**{name: getattr(self, name) for name in fields}, "uri": uri})

    @property
    def plain_secrets(self) -> list[str]:
        """Names of secrets in `storage_options` that are written there, not named by EnvVar."""
        plain = {
            name: value
            for name, value in self.storage_options.items()
            if not isinstance(value, EnvVar)
        }
        return plain_secrets(self.uri or "", plain)

    @property
    def layout(self) -> Layout:
        """Locations of all tables. A relative directory becomes absolute here, at use."""
        uri = self.uri or os.environ.get(LAKEHOUSE_URI_VARIABLE) or DEFAULT_LAKEHOUSE
        if "://" not in uri:
            uri = str(Path(uri).expanduser().absolute())
        return Layout(uri, self._options())

    def read(self, dataset: "Dataset | str", version: int | None = None) -> "DatasetReader":
        """Open a dataset for reading as Arrow, Polars, pandas or DuckDB.

        The reader stays at one version of the table and applies its deletion vectors.

        Args:
            dataset: The dataset, or its id.
            version: Version of the table; defaults to the latest.

        Returns:
            A reader with `arrow()`, `batches()`, `pl()`, `lazy()`, `df()` and `duckdb()`. The
            rows have all columns of the table, including those that the library adds (`_dz_...`).

        Raises:
            StorageError: There is no such table or version, or the table can't be read.

        Example:
            ```python
            Lakehouse().read("processed_orders").pl(columns=["order_id"], where="status = 'paid'")
            ```
        """
        from datazone_dagster.pipeline import open_dataset

        dataset_id = dataset if isinstance(dataset, str) else dataset.id
        return open_dataset(self.layout, dataset_id, version)
