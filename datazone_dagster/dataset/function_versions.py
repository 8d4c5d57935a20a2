"""The versions of the function that made a dataset: read for the check, or accepted for good."""

from __future__ import annotations

from dataclasses import dataclass

from datazone_dagster.dataset.bucket_positions import position_of_bucket
from datazone_dagster.dataset.dataset_table import KIND
from datazone_dagster.dataset.properties import (
    FUNCTION,
    generation_of,
    property_of,
)
from datazone_dagster.delta.commit import set_properties
from datazone_dagster.delta.table import opened
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.model.function_record import FunctionRecord
from datazone_dagster.model.key_bucket import WHOLE
from datazone_dagster.model.layout import Layout


@dataclass(frozen=True, slots=True)
class FunctionFacts:
    """Versions that made a dataset, its position, and the columns of its table."""

    record: FunctionRecord
    position: int
    columns: tuple[str, ...]


def function_facts(layout: Layout, dataset_id: str, source: str) -> FunctionFacts:
    """Return what is known of a dataset's function; nothing is known without a table.

    Raises:
        StorageError: The table can't be read.
    """
    table = opened(layout.dataset(dataset_id), layout.storage_options, KIND)
    return FunctionFacts(FunctionRecord(), 0, ()) if table is None else _facts(table.at, source)


def accept_version(layout: Layout, dataset_id: str, source: str, version: str) -> FunctionFacts:
    """Count all rows of a dataset as made by a version; return what was known before.

    Columns that the newest version no longer returns are accepted as well. No row changes.

    Raises:
        ConcurrentWriterError: Another commit came first; nothing was accepted.
        StorageError: The table can't be read or written.
    """
    table = opened(layout.dataset(dataset_id), layout.storage_options, KIND)
    if table is None:
        return FunctionFacts(FunctionRecord(), 0, ())
    facts = _facts(table.at, source)
    accepted = facts.record.as_made_by(version)
    name = property_of(FUNCTION, generation_of(table.at, source))
    set_properties(table, {name: accepted.to_json()})
    return facts


def _facts(table: Snapshot, source: str) -> FunctionFacts:
    saved = table.configuration.get(property_of(FUNCTION, generation_of(table, source)))
    return FunctionFacts(
        FunctionRecord.from_json(saved),
        position_of_bucket(table, source, WHOLE),
        tuple(table.schema.names),
    )
