"""Sources: the DynamoDB table whose stream is read, and the position to start from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from datazone_dagster.api import checked
from datazone_dagster.api.calls import explained_class
from datazone_dagster.api.mask import Masked, MaskKind, checked_mask
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.layout import source_name
from datazone_dagster.model.shard_set import MOST_SETS

_TABLE_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_REGION = re.compile(r"[a-z]{2,}(-[a-z0-9]+)+")


_ABSENT = {
    "table": "Perhaps table_name= is meant.",
    "region_name": "Perhaps region= is meant.",
    "stream_arn": "The library finds the stream by the name of the table.",
    "types": "Types of attributes are declared where the function reads them: items(types={...}).",
}


@explained_class('DynamoDBSource("orders", region="us-west-2")', _ABSENT)
@dataclass(frozen=True, slots=True)
class DynamoDBSource:
    """The stream of one DynamoDB table. Frozen and hashable.

    Args:
        table_name: Name of the table: 3 to 255 letters, digits, `_`, `-` and `.` (DynamoDB's
            naming rule). ARNs are not allowed.
        region: AWS region such as `"us-west-2"`; defaults to that of the resource, then of the
            environment.
        stream_enabled: Whether the table has a stream with new images. The library never changes
            a table. False: each run of a transform scans the whole table with consistent reads and
            replaces its datasets, in one commit each. There is no sensor and no change log, and
            `start` has no effect. It needs the IAM actions dynamodb:DescribeTable and
            dynamodb:Scan, and datasets with `mode="merge"` and `deletes="hard"`.
        endpoint_url: HTTP or HTTPS endpoint, such as a local DynamoDB, without credentials.
            Defaults to that of the resource, then to `AWS_ENDPOINT_URL_DYNAMODB_STREAMS`,
            `AWS_ENDPOINT_URL_DYNAMODB` and `AWS_ENDPOINT_URL`.
        start: Start position of a source that was never read. `"snapshot"`, the default, reads
            everything that the stream still has (24 hours) and also copies the table as it is: a
            scan next to the stream, which needs the IAM actions dynamodb:DescribeTable,
            dynamodb:Scan and dynamodb:BatchGetItem. `"trim_horizon"` reads the stream only,
            `"latest"` only changes from now on, by the clock of the service. A source that has
            been read before goes on where it was.
        snapshot_rcu: Limit of a snapshot in read units per second, above 0. Defaults to half of
            what DescribeTable says the table serves (provisioned, else warm throughput). The
            `MaxReadRequestUnits` of an on-demand table is never exceeded.
        on_gap: What to do when changes were lost: `"stop"` keeps the checks failing until somebody
            starts a resync or accepts the gap. `"resync"` asks for a resync by itself, if the table
            is within the budget of `resync_max_items` and `resync_max_read_units`; it needs the
            actions of `start="snapshot"`.
        resync_max_items: Most items that a resync by itself may scan, as DescribeTable counts
            them; above 0. Required with `on_gap="resync"`, not allowed without.
        resync_max_read_units: Most read units that it may take, by the size of the table; above 0.
            Required with `on_gap="resync"`, not allowed without.
        mask: Kind of mask by attribute path, applied before anything is written:
            `{"email": "hash", "card": "last4", "note": "null", "address.street": "drop"}`.
            A path leads into maps, and into every element of a list. `"hash"` needs a salt of
            16 characters or more in the environment variable `DATAZONE_MASK_SALT`. A key
            attribute allows only `"hash"`. Stored as pairs of path and kind.
        name: Name of the source: letters, digits and `_`. It names the sensor (`drain_<name>`), the
            asset of the change log (`dynamodb/<name>`) and the tables of the source. Defaults to
            the table name, with `_` for `-` and `.`. Two tables that would get the same name
            (of two regions, accounts or endpoints, or `orders.eu` and `orders-eu`) need one each
            to be in one lakehouse. A source with a new name starts with a new change log.
        description: Description of the change log's asset; defaults to one that names the table.
        tags: Tags of that asset, as for `Dataset`.
        owners: E-mail addresses or `team:<name>` of those who own that asset.
        group_name: Group of that asset, and of the datasets whose transform has none of its own.
            Defaults to the name of the source.
        drain: Who reads the shards. `"tick"`, the default: the sensor, in its ticks. `"runs"`: runs
            of the job `drain_shards_<source>` that stay, each with a share of the shards, for a
            stream with more shards or traffic than one process drains. The sensor lists the shards
            and starts these runs.
        drain_workers: Number of these runs, 1 to 32. Required with `drain="runs"`, not allowed
            without.

    Raises:
        DefinitionError: An argument is invalid; the message names it and its allowed values.
    """

    table_name: str
    region: str | None = None
    stream_enabled: bool = True
    endpoint_url: str | None = None
    start: Literal["snapshot", "trim_horizon", "latest"] = "snapshot"
    mask: Mapping[str, MaskKind] | Masked = ()
    name: str = ""
    snapshot_rcu: float | None = None
    on_gap: Literal["stop", "resync"] = "stop"
    resync_max_items: int | None = None
    resync_max_read_units: float | None = None
    description: str | None = None
    tags: Sequence[str] | Mapping[str, str] = ()
    owners: str | Sequence[str] = ()
    group_name: str | None = None
    drain: Literal["tick", "runs"] = "tick"
    drain_workers: int | None = None

    def __post_init__(self) -> None:
        """Check every argument."""
        where = f"{type(self).__name__}({self.table_name!r})"
        if not isinstance(self.table_name, str) or not _TABLE_NAME.fullmatch(self.table_name):
            raise DefinitionError(
                f"{where}: table_name is not the name of a DynamoDB table.",
                hint="Give a name of 3 to 255 letters, digits, '_', '-' and '.', not an ARN.",
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
        rcu = checked.positive_number(where, "snapshot_rcu", self.snapshot_rcu)
        object.__setattr__(self, "snapshot_rcu", rcu)
        checked.choice(where, "on_gap", self.on_gap)
        self._check_budget(where)
        object.__setattr__(self, "mask", checked_mask(where, self.mask))
        if not self.name:
            object.__setattr__(self, "name", source_name(self.table_name))
        checked.dagster_name(where, "name", self.name)
        checked.optional_text(where, "description", self.description)
        object.__setattr__(self, "tags", checked.tags(where, self.tags))
        object.__setattr__(self, "owners", checked.owners(where, self.owners))
        checked.group_name(where, self.group_name)
        checked.choice(where, "drain", self.drain)
        self._check_workers(where)

    def _check_workers(self, where: str) -> None:
        workers = self.drain_workers
        if self.drain == "tick":
            if workers is not None:
                raise DefinitionError(
                    f"{where}: drain_workers={workers!r} does not go with drain='tick'.",
                    hint='Leave it out, or give drain="runs", too.',
                )
            return
        if (
            isinstance(workers, bool)
            or not isinstance(workers, int)
            or not (1 <= workers <= MOST_SETS)
        ):
            raise DefinitionError(
                f"{where}: drain_workers={workers!r} is not a number from 1 to {MOST_SETS}.",
                hint='drain="runs" needs the number of runs that drain at a time.',
            )
        if not self.stream_enabled:
            raise DefinitionError(
                f"{where}: drain='runs' does not go with stream_enabled=False.",
                hint="Leave drain out: without a stream, there is nothing to drain.",
            )

    def _check_budget(self, where: str) -> None:
        for name in ("resync_max_items", "resync_max_read_units"):
            value = checked.positive_number(where, name, getattr(self, name))
            if (value is None) == (self.on_gap == "resync"):
                raise DefinitionError(
                    f"{where}: {name}={value!r} does not go with on_gap={self.on_gap!r}.",
                    hint='on_gap="resync" needs a budget, resync_max_items and '
                    'resync_max_read_units; on_gap="stop" takes none.',
                )

    @property
    def masked(self) -> Masked:
        """The masks as pairs of path and kind."""
        assert isinstance(self.mask, tuple)  # set by __post_init__
        return self.mask


def require_stream(source: DynamoDBSource, call: str) -> None:
    """Refuse a call that reads changes of a source without a stream.

    Args:
        source: The source.
        call: Name of the call, for the error.

    Raises:
        DefinitionError: The source has `stream_enabled=False`.
    """
    if not source.stream_enabled:
        raise DefinitionError(
            f"{call} reads a stream, but source {source.name!r} has stream_enabled=False.",
            safe="Nothing was read or written.",
            hint="Scan the table and replace its datasets: replace_from_table of "
            "datazone_dagster.pipeline, or the job apply_<transform> in Dagster.",
        )


def _check_endpoint(where: str, endpoint_url: object) -> None:
    if endpoint_url is None:
        return
    parts = urlsplit(endpoint_url) if isinstance(endpoint_url, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        # The error does not repeat the value: a mistyped URL may hold a password.
        raise DefinitionError(
            f"{where}: endpoint_url is not an http or https URL.",
            hint="Write it like 'http://127.0.0.1:8000', or leave it out.",
        )
    if parts.username or parts.password:
        raise DefinitionError(
            f"{where}: endpoint_url contains credentials.",
            hint="Pass credentials through the environment, a profile or the resource.",
        )
