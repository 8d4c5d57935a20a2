"""Options of a store as each library takes them now, with the same identity for all.

delta-rs gets explicit credentials, region and endpoint at each open: that keeps it from looking
for others by itself. obstore asks for the credentials when it needs them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from obstore.store import ObjectStore, S3Store, from_url

from datazone_dagster.delta.time_limits import REQUESTS, limited
from datazone_dagster.errors import StorageError
from datazone_dagster.model.store_identity import StoreAccess, StoreAccessOf, StoreCredentials
from datazone_dagster.model.store_options import (
    CLIENT_FLAGS,
    CLIENT_OPTIONS,
    EXTERNAL_ID,
    PROFILE,
    RETRY_OPTIONS,
    ROLE_ARN,
    ROLE_SESSION_NAME,
    checked_options,
    is_true,
    seconds,
    store_kind,
    unsafe_rename,
)
from datazone_dagster.model.store_uploads import UploadsFolder

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

_RENEWED_AFTER = timedelta(minutes=5, seconds=5)
"""End of credentials as obstore is told it: it asks again five minutes before, so after 5 seconds.
Asking costs nothing until botocore renews them."""

_IDENTITY = (PROFILE, ROLE_ARN, ROLE_SESSION_NAME, EXTERNAL_ID)
_CREDENTIALS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
_UNSAFE_RENAME = "AWS_S3_ALLOW_UNSAFE_RENAME"
_VIRTUAL_HOSTED = "aws_virtual_hosted_style_request"
_EXPRESS_BUCKET = "--x-s3"


class _Resolver:
    """The one place that may know botocore is further up: it is set from there."""

    access_of: StoreAccessOf | None = None


def resolve_access_with(access_of: StoreAccessOf) -> None:
    """Set who resolves profiles, roles, regions and endpoints of S3 for this process."""
    _Resolver.access_of = access_of


def delta_rs_options(uri: str, storage_options: Mapping[str, str]) -> dict[str, str]:
    """Return the options for one call of delta-rs, with the present credentials.

    Raises:
        DefinitionError: An option is unknown, refused, or contradicts another one.
        StorageError: There are no credentials, or they can't be renewed.
    """
    kind, options = store_kind(uri), checked_options(uri, storage_options)
    if kind != "s3":
        return options if kind == "local" else limited(options)
    access = _access(options)
    options = limited(_located(uri, options, access))
    # Not an option of ours, but delta-rs lets the variable AWS_ENDPOINT_URL_S3 win otherwise.
    options["aws_endpoint_url_s3"] = options["aws_endpoint"]
    if is_true(options["aws_skip_signature"]):
        return options
    found = access.credentials()
    options["aws_access_key_id"] = found.access_key_id
    options["aws_secret_access_key"] = found.secret_access_key
    if found.session_token:
        options["aws_session_token"] = found.session_token
    elif os.environ.get("AWS_SESSION_TOKEN") or os.environ.get("AWS_TOKEN"):
        raise StorageError(
            "The lakehouse's access keys have no session token, but the environment has "
            "AWS_SESSION_TOKEN, which delta-rs would send with them.",
            safe="Nothing was read or written.",
            hint="Unset AWS_SESSION_TOKEN in the Dagster process (a profile can hold those "
            "credentials), or give the lakehouse AWS_SESSION_TOKEN too.",
        )
    return options


def object_store(
    uri: str, storage_options: Mapping[str, str], limits: Mapping[str, str] = REQUESTS
) -> ObjectStore:
    """Return obstore's store for a URI that is not local. It makes no request yet.

    Args:
        uri: Location of the files.
        storage_options: Options as given by the user.
        limits: Limits of the requests' time, where the options have none.

    Raises:
        DefinitionError: An option is unknown, refused, or contradicts another one.
        StorageError: The profile does not exist.
        obstore.exceptions.BaseError: obstore knows no such store.
    """
    options = checked_options(uri, storage_options)
    if store_kind(uri) != "s3":
        config, client, retry = _groups(limited(options, limits))
        return from_url(uri.rstrip("/"), config=config, client_options=client, retry_config=retry)
    access = _access(options)
    anonymous = _anonymous(options)
    for name in _CREDENTIALS:
        options.pop(name, None)
    config, client, retry = _groups(limited(_located(uri, options, access), limits))
    bucket, _, prefix = uri.partition("://")[2].rstrip("/").partition("/")
    # obstore lets the variable AWS_ENDPOINT_URL_S3 win over `endpoint`, and not over this name.
    config["aws_endpoint_url_s3"] = config.pop("aws_endpoint")
    return S3Store(
        bucket,
        prefix=prefix or None,
        config=config,
        client_options=client,
        retry_config=retry,
        credential_provider=None if anonymous else _provider(access),  # type: ignore[arg-type]  # a function that returns such a dict
    )


def s3_folder(
    uri: str, storage_options: Mapping[str, str], tables: Iterable[str]
) -> UploadsFolder | None:
    """Return a folder of S3 as its unfinished uploads are asked for; None for other stores.

    Args:
        uri: The folder.
        storage_options: Options of its store.
        tables: Names of the folders below it that are asked for.

    Raises:
        DefinitionError: An option is unknown, refused, or contradicts another one.
        StorageError: There are no credentials, or they can't be renewed.
    """
    if store_kind(uri) != "s3":
        return None
    options = checked_options(uri, storage_options)
    bucket, _, prefix = uri.partition("://")[2].rstrip("/").partition("/")
    if _anonymous(options) or bucket.endswith(_EXPRESS_BUCKET):
        return None
    access = _access(options)
    return UploadsFolder(
        bucket,
        f"{prefix}/" if prefix else "",
        frozenset(tables),
        access.region,
        access.endpoint_url,
        access.credentials(),
        is_virtual_hosted=is_true(
            options.get(_VIRTUAL_HOSTED, os.environ.get(_VIRTUAL_HOSTED.upper()))
        ),
        requester_pays=is_true(options.get("aws_request_payer")),
    )


def _provider(access: StoreAccess) -> Callable[[], dict[str, Any]]:
    def provide() -> dict[str, Any]:
        found = access.credentials()
        ends = datetime.now(timezone.utc) + _RENEWED_AFTER
        return {
            "access_key_id": found.access_key_id,
            "secret_access_key": found.secret_access_key,
            "token": found.session_token,
            "expires_at": ends if found.expires else None,
        }

    return provide


def _anonymous(options: Mapping[str, str]) -> bool:
    return is_true(options.get("aws_skip_signature", os.environ.get("AWS_SKIP_SIGNATURE")))


def _located(uri: str, options: dict[str, str], access: StoreAccess) -> dict[str, str]:
    """Return options with region and endpoint in them, and without names of the identity."""
    options = {name: value for name, value in options.items() if name not in _IDENTITY}
    bucket = uri.partition("://")[2].partition("/")[0]
    endpoint = access.endpoint_url.rstrip("/")
    express = is_true(options.get("aws_s3_express")) or bucket.endswith(_EXPRESS_BUCKET)
    if _is_of_aws(endpoint) and express:
        zone = bucket.removesuffix(_EXPRESS_BUCKET).rpartition("--")[2]
        endpoint = f"https://{bucket}.s3express-{zone}.{access.region}.amazonaws.com"
        options |= {"aws_s3_express": "true", _VIRTUAL_HOSTED: "true"}
    elif _is_of_aws(endpoint) and is_true(
        options.get(_VIRTUAL_HOSTED, os.environ.get(_VIRTUAL_HOSTED.upper()))
    ):
        endpoint = endpoint.replace("://", f"://{bucket}.", 1)
        options[_VIRTUAL_HOSTED] = "true"
    if endpoint.startswith("http://"):
        options.setdefault("allow_http", "true")
    return {
        **options,
        "aws_region": access.region,
        "aws_endpoint": endpoint,
        "aws_skip_signature": "true" if _anonymous(options) else "false",
    }


def _is_of_aws(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return host.startswith("s3") and host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _access(options: Mapping[str, str]) -> StoreAccess:
    if is_true(os.environ.get(_UNSAFE_RENAME)):
        raise unsafe_rename("The environment")
    options = _paired(options)
    if _Given.fits(options):
        return _Given(options)
    if _Resolver.access_of is None:
        raise StorageError(
            "Nobody resolves the credentials of this store.",
            hint="Import datazone_dagster.pipeline, which does, before its tables are used.",
        )
    return _Resolver.access_of(options)


def _paired(options: Mapping[str, str]) -> Mapping[str, str]:
    """Return options with both halves of a key; the environment may have the other one."""
    key, secret, token = _CREDENTIALS
    if bool(options.get(key)) == bool(options.get(secret)):
        return options
    missing = secret if options.get(key) else key
    other = os.environ.get(missing.upper())
    if not other:
        raise StorageError(
            f"storage_options have half of the credentials: {missing.upper()} is missing.",
            safe="Nothing was read or written.",
            hint="Give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY together, or neither to use "
            "the profile, the role or the environment.",
        )
    of_environment = os.environ.get("AWS_SESSION_TOKEN")
    found = {**options, missing: other}
    return {token: of_environment, **found} if of_environment else found


class _Given:
    """Access by options that say everything: nothing is left to look for."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self.region, self.endpoint_url = options["aws_region"], options["aws_endpoint"]
        self._credentials = StoreCredentials(
            options["aws_access_key_id"],
            options["aws_secret_access_key"],
            options.get("aws_session_token") or None,
        )

    @staticmethod
    def fits(options: Mapping[str, str]) -> bool:
        names = ("aws_access_key_id", "aws_region", "aws_endpoint")
        return all(options.get(name) for name in names) and not options.get(ROLE_ARN)

    def credentials(self) -> StoreCredentials:
        return self._credentials


def _groups(options: Mapping[str, str]) -> tuple[Any, ClientConfig | None, RetryConfig | None]:
    """Sort options into obstore's three groups: store, client, retries."""
    config: dict[str, str] = {}
    client: dict[str, Any] = {}
    retry: dict[str, Any] = {}
    for name, value in options.items():
        if name in CLIENT_FLAGS:
            client[name] = is_true(value)
        elif name in CLIENT_OPTIONS:
            client[name] = value
        elif name == "max_retries":
            retry[name] = int(value)
        elif name == "retry_timeout":
            retry[name] = timedelta(seconds=seconds(value))
        elif name == "backoff_config.base":
            retry.setdefault("backoff", {})["base"] = float(value)
        elif name in RETRY_OPTIONS:
            bare = name.removeprefix("backoff_config.")
            retry.setdefault("backoff", {})[bare] = timedelta(seconds=seconds(value))
        else:
            config[name] = value
    return config or None, client or None, retry or None  # type: ignore[return-value]
