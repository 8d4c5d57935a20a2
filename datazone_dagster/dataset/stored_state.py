"""State of a function that is stored with its dataset: columns of items, paths, odd columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from datazone_dagster.dataset.properties import (
    ATTRIBUTES,
    CHANGE_LOG,
    FUNCTION,
    PATHS,
    START,
    UNEXPECTED,
    generation_of,
    property_of,
    still_unexpected,
)
from datazone_dagster.delta.commit import set_properties
from datazone_dagster.delta.table import Table
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.model.attributes import AttributeMapping
from datazone_dagster.model.function_record import FunctionRecord
from datazone_dagster.model.path_history import PathHistory
from datazone_dagster.model.snapshot_base import SnapshotBase


@dataclass(frozen=True, slots=True)
class FunctionState:
    """What a function's frames learnt from the chunks so far.

    Args:
        attributes: Mapping of item attributes to columns.
        paths: History of the function's paths.
        function: Versions of the function that made the rows.
        change_log: Delta id of the change log that the chunks are from; empty if it is not known.
    """

    attributes: AttributeMapping = AttributeMapping()
    paths: PathHistory = PathHistory()
    function: FunctionRecord = field(default_factory=FunctionRecord)
    change_log: str = ""


def stored_property(table: Snapshot, source: str, name: str) -> str | None:
    """Return a property of the table's generation; None if it has none."""
    return table.configuration.get(_name(table, source, name))


def stored_state(table: Snapshot, source: str) -> FunctionState:
    """Return the state that is stored with a table."""
    attributes = stored_property(table, source, ATTRIBUTES)
    paths = stored_property(table, source, PATHS)
    return FunctionState(
        AttributeMapping.from_json(attributes) if attributes else AttributeMapping(),
        PathHistory.from_json(paths) if paths else PathHistory(),
        FunctionRecord.from_json(stored_property(table, source, FUNCTION)),
        stored_property(table, source, CHANGE_LOG) or "",
    )


def first_properties(state: FunctionState) -> dict[str, str]:
    """Return the properties of a new table, whose rows come after them."""
    made_from = {CHANGE_LOG: state.change_log} if state.change_log else {}
    return {PATHS: state.paths.to_json(), **made_from}


def stored_start(table: Snapshot, source: str) -> SnapshotBase | None:
    """Return the snapshot that a table begins with; None: it begins with the first change."""
    text = stored_property(table, source, START)
    return SnapshotBase.from_json(text) if text else None


def unexpected_columns(table: Snapshot, source: str) -> tuple[tuple[str, str, int], ...]:
    """Return the recorded unexpected columns that the table still does not have."""
    recorded = stored_property(table, source, UNEXPECTED)
    return still_unexpected(recorded, table.schema.names)


def store_state(
    table: Table,
    source: str,
    state: FunctionState,
    unexpected: Sequence[tuple[str, str]],
    batch: int,
    start: SnapshotBase | None = None,
) -> None:
    """Store the state with a table; there is a commit only if it changed.

    Args:
        table: The table; the commit moves it.
        source: Source of the dataset.
        state: The state after the chunk.
        unexpected: Columns that the contract rejects, and their types.
        batch: Batch in which these columns appeared.
        start: Snapshot that the table begins with; None leaves what is stored.
    """
    known = {name: (kind, since) for name, kind, since in unexpected_columns(table.at, source)}
    recorded = {name: (kind, batch) for name, kind in unexpected} | known
    saved = stored_state(table.at, source)
    properties: dict[str, str] = {}
    if recorded != known:
        properties[UNEXPECTED] = json.dumps(recorded)
    dated = state.attributes.dated(saved.attributes, batch).with_those_of(saved.attributes)
    if len(state.attributes) and dated != saved.attributes:
        properties[ATTRIBUTES] = dated.to_json()
    paths = state.paths.with_those_of(saved.paths)
    if paths.worth_saving(saved.paths):
        properties[PATHS] = paths.to_json()
    if state.function.versions and state.function != saved.function:
        properties[FUNCTION] = state.function.to_json()
    if state.change_log not in ("", saved.change_log):
        properties[CHANGE_LOG] = state.change_log
    if start is not None and start != stored_start(table.at, source):
        properties[START] = start.to_json()
    if properties:
        named = {_name(table.at, source, name): value for name, value in properties.items()}
        set_properties(table, named)


def _name(table: Snapshot, source: str, name: str) -> str:
    return property_of(name, generation_of(table, source))
