"""Pure. Options of an object store: which there are, how they may be spelled, which contradict.

The three libraries that open a store take the same options under different spellings, and each
drops the ones that it does not know without a word. So options are checked here once, and each
library gets the same canonical names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Literal

from datazone_dagster.errors import DefinitionError

StoreKind = Literal["local", "s3", "azure", "gcs", "other"]

PROFILE = "aws_profile"
ROLE_ARN = "aws_iam_role_arn"
ROLE_SESSION_NAME = "aws_iam_role_session_name"
EXTERNAL_ID = "aws_iam_role_external_id"
"""Names under which a lakehouse's profile and role travel with its options."""

_KINDS: dict[str, StoreKind] = {
    "": "local", "file": "local", "s3": "s3", "s3a": "s3", "gs": "gcs",
    "az": "azure", "adl": "azure", "azure": "azure", "abfs": "azure", "abfss": "azure",
}  # fmt: skip

# Canonical name: other spellings. Each name is also known without its prefix (`aws_`, `azure_`
# with or without `storage_`, `google_`).
_S3: dict[str, tuple[str, ...]] = {
    "aws_access_key_id": (),
    "aws_secret_access_key": (),
    "aws_session_token": ("aws_token",),
    PROFILE: (),
    ROLE_ARN: ("aws_s3_assume_role_arn",),
    ROLE_SESSION_NAME: ("aws_s3_role_session_name",),
    EXTERNAL_ID: (),
    "aws_region": ("aws_default_region",),
    "aws_endpoint": ("aws_endpoint_url", "aws_endpoint_url_s3"),
    "aws_skip_signature": (),
    "aws_virtual_hosted_style_request": (),
    "aws_unsigned_payload": (),
    "aws_checksum_algorithm": (),
    "aws_conditional_put": (),
    "aws_copy_if_not_exists": (),
    "aws_disable_tagging": (),
    "aws_request_payer": (),
    "aws_s3_express": (),
    "aws_server_side_encryption": (),
    "aws_sse_kms_key_id": (),
    "aws_sse_bucket_key_enabled": (),
    "aws_sse_customer_key_base64": (),
}
_AZURE: dict[str, tuple[str, ...]] = {
    "azure_storage_account_name": (),
    "azure_storage_account_key": (
        "azure_storage_access_key",
        "azure_storage_master_key",
    ),
    "azure_storage_client_id": (),
    "azure_storage_client_secret": (),
    "azure_storage_tenant_id": ("azure_storage_authority_id",),
    "azure_storage_authority_host": (),
    "azure_storage_sas_key": ("azure_storage_sas_token",),
    "azure_storage_token": ("azure_storage_bearer_token",),
    "azure_storage_use_emulator": (),
    "azure_storage_endpoint": (),
    "azure_msi_endpoint": ("azure_identity_endpoint",),
    "azure_object_id": (),
    "azure_msi_resource_id": (),
    "azure_federated_token_file": (),
    "azure_use_fabric_endpoint": (),
    "azure_use_azure_cli": (),
    "azure_skip_signature": (),
    "azure_disable_tagging": (),
}
_GCS: dict[str, tuple[str, ...]] = {
    "google_service_account": ("google_service_account_path",),
    "google_service_account_key": (),
    "google_application_credentials": (),
    "google_skip_signature": (),
}
_BY_KIND: dict[StoreKind, dict[str, tuple[str, ...]]] = {"s3": _S3, "azure": _AZURE, "gcs": _GCS}
_PREFIXES: dict[StoreKind, tuple[str, ...]] = {
    "s3": ("aws_",),
    "azure": ("azure_storage_", "azure_"),
    "gcs": ("google_",),
}

CLIENT_FLAGS = frozenset({
    "allow_http", "allow_invalid_certificates", "http1_only", "http2_only",
    "randomize_addresses", "http2_keep_alive_while_idle",
})  # fmt: skip
"""Options of the HTTP client that are true or false."""

CLIENT_OPTIONS = CLIENT_FLAGS | {
    "connect_timeout", "timeout", "read_timeout", "pool_idle_timeout", "pool_max_idle_per_host",
    "proxy_url", "proxy_ca_certificate", "proxy_excludes", "user_agent",
    "http2_keep_alive_interval", "http2_keep_alive_timeout",
}  # fmt: skip
"""Options of the HTTP client, whatever the store."""

RETRY_OPTIONS = frozenset({
    "max_retries", "retry_timeout", "backoff_config.init_backoff", "backoff_config.max_backoff",
    "backoff_config.base",
})  # fmt: skip
"""Options for failed requests, whatever the store."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|m|h)")

_WITHOUT_EFFECT = frozenset({
    "aws_force_credential_load", "aws_ec2_metadata_disabled", "aws_ec2_metadata_timeout",
    "aws_s3_get_internal_server_error_retries", "aws_s3_pool_idle_timeout_seconds",
    "aws_sts_pool_idle_timeout_seconds", "aws_bucket", "aws_bucket_name",
})  # fmt: skip
"""Options that delta-rs documents or once had; they change nothing here."""

_FROM_ENVIRONMENT = frozenset({
    "aws_role_arn", "aws_role_session_name", "aws_web_identity_token_file",
    "aws_container_credentials_relative_uri", "aws_container_credentials_full_uri",
    "aws_container_authorization_token_file", "aws_metadata_endpoint", "aws_imdsv1_fallback",
    "aws_sts_endpoint", "aws_endpoint_url_sts",
})  # fmt: skip
"""Settings of a machine's identity: only the environment of the process can set them."""

_SECRETS = frozenset({
    "aws_secret_access_key", "aws_session_token", "aws_sse_customer_key_base64",
    "azure_storage_account_key", "azure_storage_client_secret", "azure_storage_sas_key",
    "azure_storage_token", "google_service_account_key",
})  # fmt: skip

_NOT_SHOWN = "Values are not shown here: they may be secrets."


def store_kind(uri: str) -> StoreKind:
    """Return the kind of store that a URI or path names."""
    scheme, found, _ = uri.partition("://")
    return _KINDS.get(scheme.lower() if found else "", "other")


def checked_options(uri: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return the options under their canonical names, those without effect left out.

    Args:
        uri: Location of the store; names without a prefix are options of its kind.
        options: Options as the user spells them, in any case, with or without prefix.

    Raises:
        DefinitionError: An option is unknown, refused, or contradicts another one.
    """
    return dict(_checked(store_kind(uri), tuple(options.items())))


def plain_secrets(uri: str, options: Mapping[str, str]) -> list[str]:
    """Return the names of the options that are secrets, as the user spells them."""
    return [name for name in options if _canonical(store_kind(uri), name) in _SECRETS]


def check_names(uri: str, options: Mapping[str, str]) -> None:
    """Check the names of options whose values are not known yet.

    Raises:
        DefinitionError: An option is unknown.
    """
    kind = store_kind(uri)
    for name in options:
        if _canonical(kind, name) is None:
            _refuse(kind, name, "")


def is_true(value: str | None) -> bool:
    """Return whether an option is switched on."""
    return (value or "").strip().lower() in ("1", "true", "yes", "on", "y")


def seconds(duration: str) -> float:
    """Return the seconds of a duration such as `500ms`, `30s`, `2m` or `1h`.

    Raises:
        ValueError: It is not one.
    """
    found = _DURATION.fullmatch(duration.strip())
    if found is None:
        raise ValueError(f"{duration!r} is not a duration such as 500ms, 30s, 2m or 1h")
    return float(found[1]) * _UNITS[found[2]]


@lru_cache(maxsize=64)
def _checked(kind: StoreKind, options: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for name, given in options:
        canonical, value = _canonical(kind, name), given
        if canonical == "aws_request_payer" and given.strip().lower() == "requester":
            value = "true"  # the only spelling that delta-rs knows
        if canonical is None:
            _refuse(kind, name, value)
        elif found.setdefault(canonical, value) != value:
            raise DefinitionError(
                f"storage_options: {spelled[canonical]} and {name} name the same option and have "
                "different values.",
                hint=f"Leave one of them out. {_NOT_SHOWN}",
            )
        else:
            spelled[canonical] = name
    _check_contradictions(found)
    _check_numbers(found)
    return tuple(found.items())


def _canonical(kind: StoreKind, name: str) -> str | None:
    low = name.strip().lower()
    for client in ("", "aws_", "azure_", "google_"):
        bare = low.removeprefix(client)
        if bare in CLIENT_OPTIONS or (not client and bare in RETRY_OPTIONS):
            return bare
    kinds: Iterable[StoreKind] = [kind] if kind in _BY_KIND else _BY_KIND
    for one, prefixes in _PREFIXES.items():
        names = _spellings(one)
        if low in names:
            return names[low]
        if one in kinds:
            for prefix in prefixes:
                if prefix + low in names:
                    return names[prefix + low]
    return None


@lru_cache(maxsize=8)
def _spellings(kind: StoreKind) -> dict[str, str]:
    """Prefixed spellings and their canonical names."""
    spellings = {}
    for canonical, others in _BY_KIND[kind].items():
        for name in (canonical, *others):
            spellings[name] = canonical
            if kind == "azure":  # azure_storage_client_id and azure_client_id
                spellings[name.replace("azure_storage_", "azure_")] = canonical
    return spellings


def _refuse(kind: StoreKind, name: str, value: str) -> None:
    """Raise for an option that is unknown or refused; return for one without effect."""
    low = name.strip().lower()
    prefixed = low if low.startswith("aws_") else f"aws_{low}"
    if prefixed in _WITHOUT_EFFECT:
        return
    if prefixed == "aws_s3_allow_unsafe_rename":
        if is_true(value):
            raise unsafe_rename("storage_options")
        return
    if prefixed == "aws_s3_locking_provider":
        raise DefinitionError(
            f"storage_options: {name} has no effect: delta-rs dropped that lock.",
            hint="Leave it out. Commits are conditional writes, which S3 and most other stores "
            "support; a store without them is refused when it is first written to.",
        )
    if prefixed in _FROM_ENVIRONMENT:
        raise DefinitionError(
            f"storage_options: {name} is a setting of the machine's identity.",
            hint=f"Set {prefixed.upper()} in the environment of the Dagster process, or name a "
            "role by Lakehouse(role_to_assume=...).",
        )
    known = sorted(
        {*CLIENT_OPTIONS, *RETRY_OPTIONS}
        | {one for each in _BY_KIND if kind in ("local", "other", each) for one in _spellings(each)}
    )
    bare = {one.split("_", 1)[1]: one for one in known if one.startswith(("aws_", "google_"))}
    near = get_close_matches(low, [*known, *bare], 1, 0.6)
    nearest = f"Did you mean {bare.get(near[0], near[0]).upper()}? " if near else ""
    raise DefinitionError(
        f"storage_options: {name!r} is not an option of this store.",
        hint=f"{nearest}Options are spelled as delta-rs spells them, such as AWS_REGION.",
    )


def unsafe_rename(where: str) -> DefinitionError:
    """Return the error for the switch that turns off the fence between two writers."""
    return DefinitionError(
        f"{where}: AWS_S3_ALLOW_UNSAFE_RENAME lets two writers overwrite each other's commits, so "
        "changes would be lost.",
        safe="Nothing was read or written.",
        hint="Remove it: S3 and most other stores have conditional writes, which need no switch.",
    )


def _check_contradictions(found: Mapping[str, str]) -> None:
    keys = [name for name in ("aws_access_key_id", "aws_secret_access_key") if found.get(name)]
    if keys and found.get(PROFILE):
        raise DefinitionError(
            "The lakehouse has both a profile and access keys in storage_options.",
            hint="Leave out one of them: the keys would win, and the profile would be unused.",
        )
    anonymous = is_true(found.get("aws_skip_signature"))
    if anonymous and (keys or found.get(PROFILE) or found.get(ROLE_ARN)):
        raise DefinitionError(
            "storage_options: AWS_SKIP_SIGNATURE means no credentials, and there are some.",
            hint="Leave out one of them.",
        )
    if found.get(EXTERNAL_ID) and not found.get(ROLE_ARN):
        raise DefinitionError(
            "The lakehouse has an external id, but no role to assume.",
            hint="Set Lakehouse(role_to_assume=...) too.",
        )
    condition = found.get("aws_conditional_put", "etag").strip().lower()
    if condition != "etag":
        raise DefinitionError(
            f"storage_options: AWS_CONDITIONAL_PUT={condition!r} is not supported.",
            hint="Leave it out, or set 'etag': two writers are kept apart by conditional writes "
            "with If-None-Match.",
        )


def _check_numbers(found: Mapping[str, str]) -> None:
    for name in sorted(RETRY_OPTIONS & found.keys()):
        parse = {"max_retries": int, "backoff_config.base": float}.get(name, seconds)
        try:
            parse(found[name])
        except ValueError:
            raise DefinitionError(
                f"storage_options: {name}={found[name]!r} can't be used.",
                hint="max_retries is a whole number, backoff_config.base a number, the others a "
                "duration such as 500ms, 30s or 2m.",
            ) from None
