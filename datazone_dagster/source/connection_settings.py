"""How to reach DynamoDB and its streams."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from datazone_dagster.errors import DefinitionError

RetryMode = Literal["standard", "adaptive"]
RETRY_MODES: tuple[RetryMode, ...] = ("standard", "adaptive")

AccountIdEndpointMode = Literal["preferred", "disabled", "required"]
ACCOUNT_ID_ENDPOINT_MODES: tuple[AccountIdEndpointMode, ...] = (
    "preferred",
    "disabled",
    "required",
)

_ROLE_ARN = re.compile(r"arn:[a-z0-9-]+:iam::\d{12}:role/\S+")


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """All that decides how DynamoDB and its streams are reached.

    Retries are botocore's standard mode: throttling, 5xx answers and network failures are
    tried again after `random(0, 1) * min(base * 2**attempt, 20)` seconds (full jitter), base
    being 1 second for throttling and less for the rest; a quota shared by all calls of a
    client stops retrying while nearly everything fails. Expired iterators, trimmed data and
    vanished shards are never retried. `adaptive` also slows down by itself when throttled.

    The defaults keep the worst call, a service that takes connections and never answers,
    at about 30 seconds: half of a sensor tick.

    Args:
        region: AWS region; None takes it from profile and environment.
        endpoint_url: Endpoint of both services; None resolves it as botocore does
            (`AWS_ENDPOINT_URL_DYNAMODB_STREAMS`, `AWS_ENDPOINT_URL_DYNAMODB`,
            `AWS_ENDPOINT_URL`, the profile, then AWS).
        profile_name: Profile of `~/.aws/config`.
        max_attempts: Attempts per call, the first one included.
        retry_mode: `standard` or `adaptive`.
        connect_timeout_seconds: For one connection attempt.
        read_timeout_seconds: For one answer, between two bytes of it.
        role_arn: Role to assume through STS; its credentials are renewed before they expire.
        role_session_name: Name of the session in CloudTrail.
        external_id: What the role's trust policy may ask for.
        account_id_endpoint_mode: Whether calls go to the endpoint of the account
            (`preferred`, `disabled`, `required`). None is botocore's own default, and
            `disabled` with an `endpoint_url`. An endpoint from the environment wins over
            account endpoints by itself.
        aws_access_key_id: Static credentials, together with the secret.
        aws_secret_access_key: Never shown.
        aws_session_token: Never shown.
        max_pool_connections: HTTP connections kept per client: the shards read at a time.
        use_ssl: Whether AWS endpoints are called by HTTPS.
        verify: Whether certificates are verified, or a CA bundle; None as botocore does.

    Raises:
        DefinitionError: A value is out of its range.
    """

    region: str | None = None
    endpoint_url: str | None = None
    profile_name: str | None = None
    max_attempts: int = 3
    retry_mode: RetryMode = "standard"
    connect_timeout_seconds: float = 5.0
    read_timeout_seconds: float = 10.0
    role_arn: str | None = None
    role_session_name: str = "datazone-dagster"
    external_id: str | None = field(default=None, repr=False)
    account_id_endpoint_mode: AccountIdEndpointMode | None = None
    aws_access_key_id: str | None = field(default=None, repr=False)
    aws_secret_access_key: str | None = field(default=None, repr=False)
    aws_session_token: str | None = field(default=None, repr=False)
    max_pool_connections: int = 16
    use_ssl: bool = True
    verify: bool | str | None = None

    def __post_init__(self) -> None:
        _require(self.max_attempts >= 1, "max_attempts", self.max_attempts, "at least 1")
        _require(
            self.max_pool_connections >= 1,
            "max_pool_connections",
            self.max_pool_connections,
            "at least 1",
        )
        for name in ("connect_timeout_seconds", "read_timeout_seconds"):
            _require(0 < getattr(self, name) <= 60, name, getattr(self, name), "above 0, up to 60")
        _require(self.retry_mode in RETRY_MODES, "retry_mode", self.retry_mode, RETRY_MODES)
        _require(
            self.account_id_endpoint_mode in (None, *ACCOUNT_ID_ENDPOINT_MODES),
            "account_id_endpoint_mode",
            self.account_id_endpoint_mode,
            ACCOUNT_ID_ENDPOINT_MODES,
        )
        if self.role_arn is not None:
            _require(
                _ROLE_ARN.fullmatch(self.role_arn) is not None,
                "role_arn",
                self.role_arn,
                "arn:aws:iam::<account>:role/<name>",
            )
        if self.endpoint_url is not None:
            _check_endpoint_url(self.endpoint_url)
        if (self.aws_access_key_id is None) != (self.aws_secret_access_key is None):
            raise DefinitionError(
                "aws_access_key_id and aws_secret_access_key: only one of the two is set.",
                hint="Set both, or none to take credentials from profile and environment.",
            )


def _require(holds: bool, name: str, value: object, allowed: object) -> None:
    if not holds:
        raise DefinitionError(f"{name}={value!r} is not allowed.", hint=f"Allowed: {allowed}.")


def _check_endpoint_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise DefinitionError(
            f"endpoint_url {parts.scheme}://{parts.hostname} carries a user name or a password.",
            hint="DynamoDB signs its requests: give the URL without them.",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DefinitionError(
            f"endpoint_url={url!r} is not a URL.", hint="Write it as http(s)://host:port."
        )
