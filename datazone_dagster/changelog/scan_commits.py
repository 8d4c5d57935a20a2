"""What the commits of a scan change in a change log, and what they leave as it was."""

from __future__ import annotations

from collections.abc import Mapping

from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.model.snapshot_state import PROPERTY


def only_scanned_since(before: Snapshot, after: Snapshot) -> bool:
    """Return whether a scan has moved on between two versions, and no other writer shows.

    A scan adds files and replaces its state. A removed file or another property is a sign of
    another writer: an erasure, for one, stores what it erases before it removes rows.
    """
    if before.metadata.get("id") != after.metadata.get("id"):  # made again
        return False
    return (
        before.configuration.get(PROPERTY) != after.configuration.get(PROPERTY)
        and _other_properties(before) == _other_properties(after)
        and before.by_identity.keys() <= after.by_identity.keys()
    )


def _other_properties(at: Snapshot) -> Mapping[str, str]:
    return {name: value for name, value in at.configuration.items() if name != PROPERTY}
