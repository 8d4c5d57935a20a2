"""Storage options of delta-rs in the spelling of obstore."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CLIENT_OPTIONS = {
    "allow_http": bool,
    "allow_invalid_certificates": bool,
    "connect_timeout": str,
    "timeout": str,
    "proxy_url": str,
    "user_agent": str,
}


def sorted_options(
    options: Mapping[str, str],
) -> tuple[Any, dict[str, Any] | None, dict[str, Any] | None]:
    """Sort the flat options of delta-rs into obstore's three groups: store, client, retries.

    Options that only delta-rs knows (locks, renames, its own caches) are left out: a commit
    is one conditional put.
    """
    config, client, retry = {}, {}, {}
    for name, value in options.items():
        key = name.lower()
        bare = key.split("_", 1)[1] if key.startswith(("aws_", "azure_", "google_")) else key
        if bare in _CLIENT_OPTIONS:
            client[bare] = _truth(value) if _CLIENT_OPTIONS[bare] is bool else value
        elif bare == "max_retries":
            retry["max_retries"] = int(value)
        elif key.startswith(_STORE_PREFIXES) and not key.startswith(_ONLY_DELTA_RS):
            config[key] = value
        elif bare in _BARE_STORE_OPTIONS:
            config[bare] = value
    return config or None, client or None, retry or None


_STORE_PREFIXES = ("aws_", "azure_", "google_")
_ONLY_DELTA_RS = (
    "aws_s3_locking_provider",
    "aws_s3_allow_unsafe_rename",
    "aws_copy_if_not_exists",
    "aws_force_credential_load",
)
_BARE_STORE_OPTIONS = (
    "access_key_id",
    "secret_access_key",
    "session_token",
    "token",
    "region",
    "endpoint",
    "endpoint_url",
    "virtual_hosted_style_request",
    "skip_signature",
    "conditional_put",
    "account_name",
    "account_key",
    "sas_key",
    "service_account",
    "service_account_key",
)


def _truth(value: str) -> bool:
    return value.strip().lower() in ("1", "true", "yes", "on", "y")
