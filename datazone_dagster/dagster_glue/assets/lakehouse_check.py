"""A run compares the lakehouse that it sees with the one that its sensor drained into.

A process with another working directory, or without the environment variable of the lakehouse,
finds no change log, or that of another lakehouse. A run there would be a success without rows.
"""

from __future__ import annotations

from collections.abc import Mapping

from dagster import AssetKey, DagsterInstance

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.dagster_glue.names import (
    BATCH_TAG,
    LAKEHOUSE_TAG,
    hidden_tag,
)
from datazone_dagster.errors import LakehouseMismatchError
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import change_log_head
from datazone_dagster.text import without_secrets

_SAFE = "Nothing was applied and nothing is lost: the changes are in the change log of the sensor."
_CURE = (
    "Give every process of Dagster (daemon, code server, runs) the same lakehouse: "
    "Lakehouse(uri=...), or the same DATAZONE_LAKEHOUSE_URI; a relative directory depends on the "
    "working directory of each process. If the lakehouse was moved, removed or restored from an "
    "older copy on purpose, start a run from the asset once the sensor has drained again: a "
    "repeated run keeps the tags of the old one."
)


def check_lakehouse(
    instance: DagsterInstance,
    tags: Mapping[str, str],
    source: DynamoDBSource,
    layout: Layout,
    change_log: AssetKey,
) -> None:
    """Raise if the run sees less of the source's change log than its sensor did.

    Args:
        instance: Instance that knows where change logs were materialized.
        tags: Tags of the run; those of the sensor are absent from a run started by hand.
        source: Source of the transform.
        layout: Locations of the tables, as the run sees them.
        change_log: Key of the source's change log.

    Raises:
        LakehouseMismatchError: The change log ends before the batch that the sensor saw, or there
            is none although one was materialized.
        StorageError: The change log can't be read.
    """
    if not source.stream_enabled:
        return
    seen = hidden_tag(tags, BATCH_TAG) or ""
    head = change_log_head(source.name, layout)
    if seen.isdecimal() and (head is None or head < int(seen)):
        raise LakehouseMismatchError(
            f"This run sees {_found(head)} of {source.name!r} in the lakehouse "
            f"{without_secrets(layout.uri)}; the sensor that requested it saw one with "
            f"batch {seen} in {hidden_tag(tags, LAKEHOUSE_TAG) or 'its own'}.",
            safe=_SAFE,
            hint=_CURE,
        )
    known = _materialized_at(instance, change_log) if head is None else None
    if known is not None:
        raise LakehouseMismatchError(
            f"There is no change log of {source.name!r} at "
            f"{without_secrets(layout.change_log(source.name))}, but the drain sensor has "
            f"materialized one at {known}.",
            safe=_SAFE,
            hint=_CURE,
        )


def _found(head: int | None) -> str:
    return "no change log" if head is None else f"a change log that ends at batch {head}"


def _materialized_at(instance: DagsterInstance, change_log: AssetKey) -> str | None:
    """Return where the change log was last materialized; None if it never was."""
    event = instance.get_latest_materialization_event(change_log)
    found = event.asset_materialization if event is not None else None
    value = found.metadata.get("dagster/uri") if found is not None else None
    return None if value is None else without_secrets(str(value.value))
