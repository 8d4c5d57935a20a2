"""The DynamoDB table that a change log belongs to: stored in a new log, compared on open."""

from __future__ import annotations

from collections.abc import Mapping

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.changelog.maintain_log import CONFIGURATION
from datazone_dagster.changelog.schema import SCHEMA
from datazone_dagster.delta import create_table
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.layout import CHANGE_LOG_KIND
from datazone_dagster.model.snapshot_state import PROPERTY as SNAPSHOT_PROPERTY
from datazone_dagster.model.snapshot_state import wanted
from datazone_dagster.model.source_identity import PROPERTY, SourceIdentity, contradicts, mismatch

KIND = CHANGE_LOG_KIND

_CONFIGURATION = {
    # Statistics of images are useless and would bloat the log.
    "delta.dataSkippingStatsColumns": f"{Log.BATCH},{Log.EVENT_TIME}",
    **CONFIGURATION,
}


def create_log(
    uri: str,
    storage_options: Mapping[str, str],
    owner: SourceIdentity | None,
    *,
    with_snapshot: bool,
) -> None:
    """Create an empty change log, unless another process was faster.

    Only a new log asks for a snapshot: one that is there already was begun without.
    """
    stored = {} if owner is None else {PROPERTY: owner.to_json()}
    if with_snapshot:
        stored[SNAPSHOT_PROPERTY] = wanted("start").to_json()
    create_table(
        uri,
        storage_options,
        KIND,
        SCHEMA,
        partition_by=(Log.BUCKET,),
        configuration={**_CONFIGURATION, **stored},
        description="Every change of the source, once, as it arrived. "
        "Written by datazone_dagster only.",
    )


def owner_of(properties: Mapping[str, str]) -> SourceIdentity | None:
    """Return the table that a change log belongs to; None if an earlier version made the log."""
    stored = properties.get(PROPERTY)
    return None if stored is None else SourceIdentity.from_json(stored)


def check_owner(properties: Mapping[str, str], uri: str, source: DynamoDBSource) -> None:
    """Compare the owner in a change log's properties with what the definition of a source says.

    Raises:
        SourceMismatchError: The log belongs to another table.
    """
    owner = owner_of(properties)
    if owner is not None and contradicts(owner, source.table_name, source.region):
        region = f" in region {source.region}" if source.region else ""
        found = f"table {source.table_name!r}{region}"
        raise mismatch(source.name, uri, owner, found)
