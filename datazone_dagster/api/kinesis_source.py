"""Source whose changes come through a Kinesis stream: Kinesis Data Streams for DynamoDB."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from datazone_dagster.api.calls import explained_class
from datazone_dagster.api.mask import Masked, MaskKind
from datazone_dagster.api.source import DynamoDBSource
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.service_limits import RETENTION

_STREAM_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")


_ABSENT = {
    **dict.fromkeys(
        ("drain", "drain_workers"), "A Kinesis stream is read by its sensor only: leave it out."
    ),
    "stream_enabled": "A KinesisSource always reads a stream: leave it out.",
    "stream_arn": "Give the name of the Kinesis stream, stream_name=; region= has its region.",
}


@explained_class('KinesisSource("orders", "orders-changes", region="us-west-2")', _ABSENT)
@dataclass(frozen=True, slots=True, init=False)
class KinesisSource(DynamoDBSource):
    """The changes of one DynamoDB table, by way of the Kinesis stream that it sends them to.

    Usable wherever a `DynamoDBSource` is. Kinesis keeps changes for days, up to a year, and has
    room for more readers. It promises neither order nor once: changes are ordered by their time in
    microseconds, and one that is delivered twice lands once, as far back as the change log reaches.
    The table must send its changes with
    `ApproximateCreationDateTimePrecision=MICROSECOND`; with milliseconds, the default of AWS, two
    changes of one item in the same millisecond can't be ordered, which the check `stream_health`
    warns of. The library never changes a table or a stream.

    A source that read the table's own stream before, under the same name, and now reads Kinesis is
    a new stream to its change log: the check says that changes between the two may be missing,
    until a resync or an acceptance, and a new epoch begins. The same holds the other way round.

    Args:
        table_name: Name of the table, as for `DynamoDBSource`.
        stream_name: Name of the Kinesis stream: 1 to 128 letters, digits, `_`, `-` and `.`. It is
            in the account and region of the table. Other tables may send to it as well; their
            changes are passed over.
        region: AWS region of both, as for `DynamoDBSource`.
        endpoint_url: Endpoint of DynamoDB and of Kinesis, such as a local DynamoDB. Defaults to
            that of the resource, then to `AWS_ENDPOINT_URL_KINESIS`, `AWS_ENDPOINT_URL_DYNAMODB`
            and `AWS_ENDPOINT_URL`.
        start: As for `DynamoDBSource`: `"snapshot"` copies the table and reads everything that the
            stream still has, `"trim_horizon"` only reads the stream, `"latest"` only changes from
            now on.
        snapshot_rcu: As for `DynamoDBSource`.
        on_gap: As for `DynamoDBSource`.
        resync_max_items: As for `DynamoDBSource`.
        resync_max_read_units: As for `DynamoDBSource`.
        mask: As for `DynamoDBSource`.
        name: As for `DynamoDBSource`.
        description: As for `DynamoDBSource`.
        tags: As for `DynamoDBSource`.
        owners: As for `DynamoDBSource`.
        group_name: As for `DynamoDBSource`.

    Raises:
        DefinitionError: An argument is invalid; the message names it and its allowed values.
    """

    stream_name: str = ""

    def __init__(
        self,
        table_name: str,
        stream_name: str,
        region: str | None = None,
        *,
        endpoint_url: str | None = None,
        start: Literal["snapshot", "trim_horizon", "latest"] = "snapshot",
        mask: Mapping[str, MaskKind] | Masked = (),
        name: str = "",
        snapshot_rcu: float | None = None,
        on_gap: Literal["stop", "resync"] = "stop",
        resync_max_items: int | None = None,
        resync_max_read_units: float | None = None,
        description: str | None = None,
        tags: Sequence[str] | Mapping[str, str] = (),
        owners: str | Sequence[str] = (),
        group_name: str | None = None,
    ) -> None:
        if not isinstance(stream_name, str) or not _STREAM_NAME.fullmatch(stream_name):
            raise DefinitionError(
                f"KinesisSource({table_name!r}): stream_name is not the name of a Kinesis stream.",
                hint="Give a name of 1 to 128 letters, digits, '_', '-' and '.', not an ARN.",
            )
        object.__setattr__(self, "stream_name", stream_name)
        DynamoDBSource.__init__(
            self,
            table_name,
            region,
            endpoint_url=endpoint_url,
            start=start,
            mask=mask,
            name=name,
            snapshot_rcu=snapshot_rcu,
            on_gap=on_gap,
            resync_max_items=resync_max_items,
            resync_max_read_units=resync_max_read_units,
            description=description,
            tags=tags,
            owners=owners,
            group_name=group_name,
        )


def stream_name_of(source: DynamoDBSource) -> str | None:
    """Return the Kinesis stream of a source; None for the stream of the table itself."""
    return source.stream_name if isinstance(source, KinesisSource) else None


def known_retention(source: DynamoDBSource) -> timedelta | None:
    """Return the time that the stream of a source keeps changes; None: a setting of Kinesis."""
    return None if isinstance(source, KinesisSource) else RETENTION
