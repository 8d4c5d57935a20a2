"""As whom, and where, a lakehouse on S3 is used: botocore's chain, resolved once per process.

The libraries that open tables have chains of their own, and they differ: one knows no profiles,
another takes a role from the environment that the others ignore. So botocore resolves static
keys, profile, SSO, `credential_process`, assumed role, web identity, container and instance, and
all of them get the result.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError

from datazone_dagster.errors import StorageError, StoreCredentialsError
from datazone_dagster.model.store_identity import StoreCredentials
from datazone_dagster.model.store_options import EXTERNAL_ID, PROFILE, ROLE_ARN, ROLE_SESSION_NAME
from datazone_dagster.source.assumed_role import assuming, base_session
from datazone_dagster.source.connection_settings import ConnectionSettings
from datazone_dagster.source.endpoints import is_local
from datazone_dagster.source.failures import origin
from datazone_dagster.source.session import client_config

_DEFAULT_REGION = "us-east-1"  # of S3 clients that are told none
_SESSION_NAME = "datazone-dagster"
_ROLE_VARIABLES = ("AWS_IAM_ROLE_ARN", "AWS_S3_ASSUME_ROLE_ARN")
_SESSION_NAME_VARIABLES = ("AWS_IAM_ROLE_SESSION_NAME", "AWS_S3_ROLE_SESSION_NAME")
_IDENTITY = (
    "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_region",
    "aws_endpoint", PROFILE, ROLE_ARN, ROLE_SESSION_NAME, EXTERNAL_ID,
)  # fmt: skip

_IDENTITIES_MOST = 16
"""Identities that a process keeps; more are those of an environment that keeps changing."""

_lock = threading.Lock()
_cache: dict[tuple[Any, ...], BotoStoreAccess] = {}


def store_access(options: Mapping[str, str]) -> BotoStoreAccess:
    """Return the access for canonical storage options; one per identity and environment.

    Raises:
        DefinitionError: The role is no ARN.
        StorageError: The profile does not exist, or the endpoint is not a URL.
    """
    environment = sorted(one for one in os.environ.items() if one[0].startswith("AWS_"))
    key = (*(options.get(name) for name in _IDENTITY), *environment)
    with _lock:
        if key not in _cache:
            if len(_cache) >= _IDENTITIES_MOST:
                del _cache[next(iter(_cache))]
            _cache[key] = BotoStoreAccess(options)
        return _cache[key]


class BotoStoreAccess:
    """Access to S3 with one identity; credentials are looked for on first use, not before.

    Args:
        options: Canonical storage options.

    Raises:
        DefinitionError: The role is no ARN.
        StorageError: The profile does not exist, or the endpoint is not a URL.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        self._settings = _settings(options)
        self._lock = threading.Lock()
        self._credentials: Any = None
        try:
            self._base = base_session(self._settings)
            self.region: str = (
                options.get("aws_region")
                or os.environ.get("AWS_REGION")
                or self._base.get_config_variable("region")
                or _DEFAULT_REGION
            )
            self.endpoint_url: str = options.get("aws_endpoint") or self._endpoint_url()
        except (BotoCoreError, ValueError) as error:
            raise self._failed(error) from None

    def credentials(self) -> StoreCredentials:
        """Return the present credentials; they are renewed before they expire.

        Raises:
            StorageError: There are none, or they can't be renewed.
        """
        try:
            with self._lock:
                if self._credentials is None:
                    self._credentials = self._session().get_credentials()
            found = self._credentials
            if found is None:
                raise self._failed(None)
            frozen = found.get_frozen_credentials()
        except (BotoCoreError, ClientError) as error:
            raise self._failed(error) from None
        except RuntimeError as error:
            if "still expired" not in str(error):
                raise
            # botocore's message for new credentials that are expired by this machine's clock.
            raise self._failed(error) from None
        return StoreCredentials(
            frozen.access_key,
            frozen.secret_key,
            frozen.token or None,
            isinstance(found, RefreshableCredentials),
        )

    def _session(self) -> botocore.session.Session:
        if is_local(self.endpoint_url):
            # No server on this machine needs instance credentials; the search takes seconds.
            self._base.get_component("credential_provider").remove("iam-role")
        if self._settings.role_arn is None:
            return self._base
        return assuming(self._base, self._settings, self.region, client_config(self._settings))

    def _endpoint_url(self) -> str:
        # Only a client knows its endpoint. The placeholders keep it from looking for credentials.
        client = self._base.create_client(
            "s3",
            region_name=self.region,
            aws_access_key_id="none",
            aws_secret_access_key="none",
            config=Config(s3={"us_east_1_regional_endpoint": "regional"}),
        )
        return str(client.meta.endpoint_url)

    def _failed(self, error: Exception | None) -> StorageError:
        settings = self._settings
        named = (
            f"role {settings.role_arn}"
            if settings.role_arn
            else f"profile {settings.profile_name!r}"
            if settings.profile_name
            else "the environment of this process"
        )
        code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else ""
        reason = code or (type(error).__name__ if error else "none found")
        return StoreCredentialsError(
            f"The store has no credentials: {named} provides none ({reason}, endpoint "
            f"{origin(getattr(self, 'endpoint_url', None))}).",
            safe="Nothing was read or written.",
            hint="Check profile_name and role_to_assume of Lakehouse, AWS_PROFILE and the AWS_* "
            "variables of the Dagster process, the role's trust policy, and whether a login has "
            "expired. A store that is not AWS needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        )


def _settings(options: Mapping[str, str]) -> ConnectionSettings:
    role, session_name = options.get(ROLE_ARN), options.get(ROLE_SESSION_NAME)
    profile, key = options.get(PROFILE), options.get("aws_access_key_id")
    if not (role or profile or key):
        # What the lakehouse names wins over the environment, as everywhere in AWS.
        role = _variable(_ROLE_VARIABLES)
    return ConnectionSettings(
        profile_name=profile or None,
        role_arn=role or None,
        role_session_name=session_name or _variable(_SESSION_NAME_VARIABLES) or _SESSION_NAME,
        external_id=options.get(EXTERNAL_ID) or None,
        aws_access_key_id=key or None,
        aws_secret_access_key=options.get("aws_secret_access_key") or None,
        aws_session_token=options.get("aws_session_token") or None,
    )


def _variable(names: tuple[str, ...]) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)
