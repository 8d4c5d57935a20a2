"""Descriptions of a dataset's columns. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from datazone_dagster.model import column_names as names
from datazone_dagster.model.contract import Contract

LIBRARY_COLUMNS: Mapping[str, str] = {
    names.KEY: "Key of the item, as text: one row per key in merge mode.",
    names.VERSION: "Order of the changes of one key: epoch and sequence number.",
    names.EVENT_TIME: "Time of the change, cut to the second by DynamoDB.",
    names.VALID_FROM: "Time from which the row was the item.",
    names.VALID_TO: "Time up to which the row was the item; null while it still is.",
    names.IS_CURRENT: "Whether the row is the item as it is now.",
    names.DELETED: "Whether the item was deleted.",
    names.DELETE_CAUSE: "Who deleted the item: user, or ttl for time to live.",
    names.REST: "Attributes beyond the limit on columns, as one JSON object.",
}
"""Descriptions of the columns that the library adds."""


def column_texts(contract: Contract, sources: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Return the description of each column that has one.

    Args:
        contract: Declared columns; a text of theirs comes first.
        sources: Paths and fields of the stream record that each column is from.
    """
    made = {name: f"From {', '.join(paths)}." for name, paths in sources.items() if paths}
    declared = {one.name: one.description for one in contract.columns if one.description}
    return {**made, **LIBRARY_COLUMNS, **declared}
