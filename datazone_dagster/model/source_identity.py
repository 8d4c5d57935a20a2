"""Identity of a source: what tells the table of one change log from every other table.

A source name is only a name: `orders` exists in many regions, accounts and emulators, and
`orders.eu` and `orders-eu` get the same one. Sequence numbers of two tables can't be compared, so
their records must never meet in one change log (invariant 13).
"""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from datazone_dagster.errors import SourceMismatchError

PROPERTY = "datazone.source"
"""Table property of a change log that stores the identity."""

_FORMER_IDS_MAX = 50


@dataclass(frozen=True, slots=True)
class SourceIdentity:
    """A table, as the service describes it.

    Args:
        table_name: Name of the table.
        region: Region of the calls; empty if unknown.
        endpoint: Scheme, host and port of the endpoint.
        exists: Whether the service knows the table.
        table_arn: ARN of the table; empty if the service returns none.
        table_id: Id of the table, which a re-created table does not keep; empty if the service
            returns none.
        stream_arn: ARN of the enabled stream; empty if there is none. Not stored.
        former_table_ids: Ids of the tables that had the ARN before, oldest first.
    """

    table_name: str
    region: str = ""
    endpoint: str = ""
    exists: bool = True
    table_arn: str = ""
    table_id: str = ""
    stream_arn: str = ""
    former_table_ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Describe the table for an error text."""
        name = self.table_arn or f"table {self.table_name!r}"
        parts = [f"id {self.table_id}"] if self.table_id else []
        if not self.table_arn and self.region:
            parts.append(f"region {self.region}")
        parts += [f"endpoint {self.endpoint}"] if self.endpoint else []
        parts += [] if self.exists else ["no such table"]
        return f"{name} ({', '.join(parts)})" if parts else name

    def to_json(self) -> str:
        """Return the text of the table property."""
        stored = {name: value for name, value in asdict(self).items() if value}
        for name in ("exists", "stream_arn"):
            stored.pop(name, None)
        return json.dumps(stored, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> SourceIdentity:
        """Return the identity in the table property; fields of later versions are ignored."""
        stored: dict[str, Any] = json.loads(text)
        names = ("table_name", "region", "endpoint", "table_arn", "table_id")
        return cls(
            **{name: stored.get(name, "") for name in names},
            former_table_ids=tuple(stored.get("former_table_ids", ())),
        )


class Relation(enum.Enum):
    """Relation of the table that a process reads to the table of the change log."""

    SAME = "same"
    RECREATED = "re-created"
    ANOTHER = "another"


def relation(recorded: SourceIdentity, found: SourceIdentity) -> Relation:
    """Compare the recorded identity with the table that was found.

    An ARN names account, region and table, so it decides. Without one, the endpoint and the
    table name decide. A table id that was replaced before never comes back: that is another
    table, which drains into the same change log.
    """
    if not found.exists:
        same = _place(recorded) == _place(found) and recorded.region == found.region
        return Relation.SAME if same else Relation.ANOTHER
    if recorded.table_arn and found.table_arn:
        if recorded.table_arn != found.table_arn:
            return Relation.ANOTHER
    elif _place(recorded) != _place(found):
        return Relation.ANOTHER
    if not recorded.table_id or not found.table_id or recorded.table_id == found.table_id:
        return Relation.SAME
    if found.table_id in recorded.former_table_ids:
        return Relation.ANOTHER
    return Relation.RECREATED


def to_record(recorded: SourceIdentity | None, found: SourceIdentity) -> SourceIdentity | None:
    """Return the identity to store; None if the stored one is up to date.

    Only an id that was learned or that changed is worth a commit: an endpoint may change at any
    time.
    """
    if not found.exists:
        return None
    if recorded is None:
        return replace(found, stream_arn="", former_table_ids=())
    if not found.table_id or recorded.table_id == found.table_id:
        return None
    former = (*recorded.former_table_ids, recorded.table_id) if recorded.table_id else ()
    return replace(found, stream_arn="", former_table_ids=former[-_FORMER_IDS_MAX:])


def table_of_stream(stream_arn: str) -> str:
    """Return the part of a stream ARN that names the table; empty if it has none."""
    table, separator, _ = stream_arn.partition("/stream/")
    return table if separator else ""


def contradicts(recorded: SourceIdentity, table_name: str, region: str | None) -> bool:
    """Return whether a source can't be the recorded table, by what its definition says.

    A process that does not ask the service knows no more than that.
    """
    if recorded.table_name and recorded.table_name != table_name:
        return True
    # Some emulators serve every region from one table: its ARN then does not have the region.
    in_arn = f":{recorded.region}:" in recorded.table_arn
    return bool(region and recorded.region and in_arn and recorded.region != region)


def mismatch(name: str, uri: str, recorded: object, found: object) -> SourceMismatchError:
    """Return the error for a change log that belongs to another table."""
    return SourceMismatchError(
        f"The change log of source {name!r} at {uri} belongs to {recorded}, but this process "
        f"reads {found}.",
        safe="Nothing was read or written: the records of two tables never meet in one change log.",
        hint="To have both tables in this lakehouse, give one of them a name of its own: "
        'DynamoDBSource(..., name="..."). If the source points to the wrong table, correct its '
        "region, endpoint_url, table_name or credentials.",
    )


def _place(identity: SourceIdentity) -> tuple[str, str]:
    return identity.endpoint, identity.table_name
