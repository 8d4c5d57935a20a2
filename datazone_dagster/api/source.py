"""Sources: which DynamoDB table's stream is read, and from where on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from datazone_dagster.api import checked
from datazone_dagster.api.mask import Masked, MaskKind, checked_mask
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.layout import source_name

_TABLE_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_REGION = re.compile(r"[a-z]{2,}(-[a-z0-9]+)+")


@dataclass(frozen=True, slots=True)
class DynamoDBSource:
    """The stream of one DynamoDB table.

    Args:
        table_name: 3 to 255 letters, digits, `_`, `-` and `.` (DynamoDB's naming rule).
        region: The AWS region; the default comes from the resource, then the environment.
        stream_enabled: The table has a stream with new images. We never change a table, so
            False can't feed a transform.
        endpoint_url: Another endpoint, such as a local DynamoDB; the default comes from the
            resource, then from `AWS_ENDPOINT_URL_DYNAMODB_STREAMS`, `AWS_ENDPOINT_URL_DYNAMODB`
            and `AWS_ENDPOINT_URL`.
        start: Where a source that was never read begins: `"trim_horizon"` takes everything
            that the stream still holds (24 hours), `"latest"` only what comes from now on.
        mask: Attributes that are made unreadable before anything is written, by path:
            `{"email": "hash", "card": "last4", "note": "null", "address.street": "drop"}`.
            A path goes into maps, and into every element of a list. `"hash"` needs a salt of
            16 characters or more in the environment variable `DATAZONE_MASK_SALT`; an attribute
            of the key can only be hashed. Kept as pairs of path and kind.

    Raises:
        DefinitionError: An argument can't be used; the text names it and what it takes.
    """

    table_name: str
    region: str | None = None
    stream_enabled: bool = True
    endpoint_url: str | None = None
    start: Literal["snapshot", "trim_horizon", "latest"] = "trim_horizon"
    mask: Mapping[str, MaskKind] | Masked = ()

    def __post_init__(self) -> None:
        """Check every argument."""
        where = f"DynamoDBSource({self.table_name!r})"
        if not isinstance(self.table_name, str) or not _TABLE_NAME.fullmatch(self.table_name):
            raise DefinitionError(
                f"{where}: table_name is not the name of a DynamoDB table.",
                hint="It has 3 to 255 letters, digits, '_', '-' and '.'; no ARN.",
            )
        if self.region is not None and not (
            isinstance(self.region, str) and _REGION.fullmatch(self.region)
        ):
            raise DefinitionError(
                f"{where}: region={self.region!r} is not an AWS region.",
                hint="Write it like 'us-west-2', or leave it out.",
            )
        checked.flag(where, "stream_enabled", self.stream_enabled)
        _check_endpoint(where, self.endpoint_url)
        checked.choice(where, "start", self.start)
        object.__setattr__(self, "mask", checked_mask(where, self.mask))

    @property
    def name(self) -> str:
        """The table name as a Dagster name: of the sensor, the change log and its asset."""
        return source_name(self.table_name)

    @property
    def masked(self) -> Masked:
        """Path and kind of every mask."""
        assert isinstance(self.mask, tuple)  # by __post_init__
        return self.mask


def _check_endpoint(where: str, endpoint_url: object) -> None:
    if endpoint_url is None:
        return
    parts = urlsplit(endpoint_url) if isinstance(endpoint_url, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        # The value is not repeated: a mistyped URL may hold a password.
        raise DefinitionError(
            f"{where}: endpoint_url is not an http or https URL.",
            hint="Write it like 'http://127.0.0.1:8000', or leave it out.",
        )
    if parts.username or parts.password:
        raise DefinitionError(
            f"{where}: endpoint_url holds credentials.",
            hint="Give them through the environment, a profile or the resource.",
        )
