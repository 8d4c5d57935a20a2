"""Sessions of botocore with the credentials of an assumed role."""

from __future__ import annotations

from functools import partial
from typing import cast

import botocore.session
from botocore import credentials as boto_credentials
from botocore.config import Config
from botocore.exceptions import NoCredentialsError

from datazone_dagster.source.connection_settings import ConnectionSettings


class _RoleProvider(boto_credentials.CredentialProvider):
    """Provider of a role's credentials, fetched on first use and renewed before they expire."""

    METHOD = "datazone-assume-role"

    def __init__(self, fetcher: boto_credentials.AssumeRoleCredentialFetcher) -> None:
        super().__init__()
        self._fetcher = fetcher

    def load(self) -> boto_credentials.DeferredRefreshableCredentials:
        return boto_credentials.DeferredRefreshableCredentials(
            refresh_using=self._fetcher.fetch_credentials, method="assume-role"
        )


def base_session(settings: ConnectionSettings) -> botocore.session.Session:
    """Return a session with the profile and the static keys of the settings, if they have any."""
    core = botocore.session.Session(profile=settings.profile_name)
    if settings.aws_access_key_id is not None and settings.aws_secret_access_key is not None:
        core.set_credentials(
            settings.aws_access_key_id,
            settings.aws_secret_access_key,
            settings.aws_session_token,
        )
    return core


def assuming(
    base: botocore.session.Session,
    settings: ConnectionSettings,
    region: str | None,
    config: Config,
) -> botocore.session.Session:
    """Return a session with the credentials of the role, assumed by those of `base`.

    Args:
        base: Session whose credentials may assume the role.
        settings: Settings with the role.
        region: Region of STS; None takes that of the session.
        config: Timeouts and retries of STS.

    Raises:
        NoCredentialsError: The base session has no credentials.
    """
    base_credentials = base.get_credentials()
    if base_credentials is None:
        raise NoCredentialsError
    extra = {"RoleSessionName": settings.role_session_name}
    if settings.external_id is not None:
        extra["ExternalId"] = settings.external_id
    fetcher = boto_credentials.AssumeRoleCredentialFetcher(
        client_creator=partial(base.create_client, region_name=region, config=config),
        source_credentials=base_credentials,
        role_arn=cast("str", settings.role_arn),
        extra_args=extra,
    )
    session = botocore.session.Session(profile=settings.profile_name)
    session.register_component(
        "credential_provider", boto_credentials.CredentialResolver([_RoleProvider(fetcher)])
    )
    return session
