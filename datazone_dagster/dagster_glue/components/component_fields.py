"""Fields of the YAML file of a component, each with a description and an example."""

# No postponed annotations here: Dagster makes the schema of the YAML file from them.

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

import dagster as dg

from datazone_dagster.dagster_glue.components.component_secrets import secret, secrets
from datazone_dagster.dagster_glue.resources import DynamoDBStreamsResource, Lakehouse
from datazone_dagster.errors import DefinitionError


def described(description: str, example: object) -> Any:  # Dagster's function has no types
    """Return the default resolution of a field, with what an editor shows of it."""
    return dg.Resolver.default(description=description, examples=[example])


def listed(given: list[str] | str | None) -> list[str]:
    """Return the texts of a field that takes several; Dagster lets a single text pass, too."""
    return [given] if isinstance(given, str) else list(given or ())


def mapped(where: str, field: str, given: object) -> dict[str, str]:
    """Return the texts by name of a field that takes a mapping; Dagster lets a single text pass.

    Raises:
        DefinitionError: It is no mapping.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise DefinitionError(
            f"{where}: {field}: {given!r} is not a mapping.",
            hint=f"Write {field}: {{name: value}}, or a line `name: value` for each below it.",
        )
    return dict(given)


@dataclass
class DynamoDBCredentials(dg.Resolvable):
    """Connection to DynamoDB: fields of dagster-aws' `Boto3CredentialsComponent`, and a role.

    Prefer a role or a profile over keys. A secret as `{{ env.NAME }}` stays the name of the
    variable in what Dagster stores and shows of a resource.
    """

    region_name: Annotated[str | None, described("AWS region.", "us-west-2")] = None
    endpoint_url: Annotated[
        str | None, described("Endpoint of both services.", "http://127.0.0.1:8000")
    ] = None
    aws_access_key_id: Annotated[
        str | None,
        secret("Access key id.", "{{ env.AWS_ACCESS_KEY_ID }}"),
    ] = None
    aws_secret_access_key: Annotated[
        str | None,
        secret("Secret access key.", "{{ env.AWS_SECRET_ACCESS_KEY }}"),
    ] = None
    aws_session_token: Annotated[
        str | None,
        secret("Session token of temporary credentials.", "{{ env.AWS_SESSION_TOKEN }}"),
    ] = None
    profile_name: Annotated[str | None, described("Profile of ~/.aws/config.", "shop")] = None
    use_ssl: Annotated[bool, described("Whether to use TLS.", False)] = True
    verify: Annotated[bool, described("Whether to verify certificates.", False)] = True
    max_attempts: Annotated[int, described("Attempts per call, the first one included.", 5)] = 3
    retry_mode: Annotated[str, described("standard or adaptive.", "adaptive")] = "standard"
    role_to_assume: Annotated[
        str | None,
        described("ARN of a role to assume.", "arn:aws:iam::123456789012:role/orders-reader"),
    ] = None
    external_id: Annotated[
        str | None, secret("External id that the role asks for.", "{{ env.EXTERNAL_ID }}")
    ] = None

    def resource(self) -> DynamoDBStreamsResource:
        """Return the resource."""
        return DynamoDBStreamsResource(**_given(self))

    def initialized(self) -> DynamoDBStreamsResource:
        """Return the resource with the values of its variables, for calls outside of Dagster."""
        values: dict[str, Any] = {
            name: one.get_value() if isinstance(one, dg.EnvVar) else one
            for name, one in _given(self).items()
        }
        return DynamoDBStreamsResource(**values)


@dataclass
class LakehouseAttributes(dg.Resolvable):
    """Location of the tables."""

    uri: Annotated[str | None, described("Directory or object store.", "s3://acme-lake/orders")] = (
        None
    )
    storage_options: Annotated[
        dict[str, str] | None,
        secrets("Settings of the store, under delta-rs' names.", {"AWS_REGION": "us-west-2"}),
    ] = None
    profile_name: Annotated[str | None, described("Profile of ~/.aws/config.", "shop")] = None
    role_to_assume: Annotated[
        str | None,
        described("ARN of a role to assume.", "arn:aws:iam::123456789012:role/lake-writer"),
    ] = None

    def resource(self) -> Lakehouse:
        """Return the resource.

        Raises:
            DefinitionError: `storage_options` is no mapping.
        """
        mapped("lakehouse", "storage_options", self.storage_options)
        return Lakehouse(**_given(self))


def _given(attributes: Any) -> dict[str, Any]:
    """Return the fields that are set."""
    found = {one.name: getattr(attributes, one.name) for one in fields(attributes)}
    return {name: value for name, value in found.items() if value is not None}
