"""Connection settings of DynamoDB and its streams."""

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
    """Settings of the connection to DynamoDB and its streams.

    Retries are botocore's standard mode: throttling, 5xx responses and network failures are
    tried again after `random(0, 1) * min(base * 2**attempt, 20)` seconds (full jitter). The base
    is 1 second for throttling and less for the rest. A quota shared by all calls of a client
    stops retries while nearly everything fails. Expired iterators, trimmed data and vanished
    shards are never retried. `adaptive` also slows down by itself when throttled.

    The defaults limit the worst call, to a service that accepts connections and never responds,
    to about 30 seconds: half of a sensor tick.

    Args:
        region: AWS region; None takes it from profile and environment.
        endpoint_url: Endpoint of both services; None resolves it as botocore does
            (`AWS_ENDPOINT_URL_DYNAMODB_STREAMS`, `AWS_ENDPOINT_URL_DYNAMODB`,
            `AWS_ENDPOINT_URL`, the profile, then AWS).
        profile_name: Profile of `~/.aws/config`.
        max_attempts: Attempts per call, the first one included; at least 1.
        retry_mode: `standard` or `adaptive`.
        connect_timeout_seconds: Limit of one connection attempt; above 0, up to 60.
        read_timeout_seconds: Limit of the wait between two bytes of a response; above 0, up to
            60.
        role_arn: Role to assume through STS; its credentials are renewed before they expire.
        role_session_name: Name of the session in CloudTrail.
        external_id: External id that the role's trust policy may require; never shown.
        account_id_endpoint_mode: Whether calls go to the endpoint of the account
            (`preferred`, `disabled`, `required`). None is botocore's own default, and
            `disabled` with an `endpoint_url`. An endpoint from the environment always wins over
            account endpoints.
        aws_access_key_id: Static access key, together with the secret; never shown.
        aws_secret_access_key: Secret of the static access key; never shown.
        aws_session_token: Session token of temporary credentials; never shown.
        max_pool_connections: HTTP connections per client, which is the number of shards read at
            a time; at least 1.
        use_ssl: Whether AWS endpoints are called over HTTPS.
        verify: Whether certificates are verified, or the path of a CA bundle; None does as
            botocore does.

    Raises:
        DefinitionError: A value is out of range.
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
                hint="Set both, or neither to use credentials of the profile or environment.",
            )


def _require(holds: bool, name: str, value: object, allowed: object) -> None:
    if not holds:
        raise DefinitionError(f"{name}={value!r} is not allowed.", hint=f"Allowed: {allowed}.")


def _check_endpoint_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise DefinitionError(
            f"endpoint_url {parts.scheme}://{parts.hostname} contains a user name or a password.",
            hint="Give the URL without them: requests to DynamoDB are signed.",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DefinitionError(
            f"endpoint_url={url!r} is not a URL.", hint="Write it as http(s)://host:port."
        )
