"""Datasets that scans of a DynamoDB table replace, and how they are told from those of a stream.

The two kinds never mix. Rows of a scan have no place in the order of a stream's changes, and what
a stream has deleted, a scan can't know.
"""

from __future__ import annotations

from typing import NamedTuple

from datazone_dagster.dataset.dataset_table import KIND
from datazone_dagster.dataset.properties import (
    ATTRIBUTES,
    MODE,
    SCAN,
    erasures_of,
    generation_of,
    property_of,
)
from datazone_dagster.delta import create_table
from datazone_dagster.delta.table import opened
from datazone_dagster.errors import StorageError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.scan_facts import ScanFacts


class ScannedState(NamedTuple):
    """A dataset of a source without a stream: its counts of runs and erasures, its last scan."""

    exists: bool = False
    generation: int = 0
    erasures: int = 0
    scan: ScanFacts | None = None


def scanned_state(layout: Layout, dataset_id: str, source: str) -> ScannedState:
    """Return the state of a dataset that scans replace.

    Raises:
        StorageError: The dataset is made from changes of a stream, or can't be read.
    """
    table = opened(layout.dataset(dataset_id), layout.storage_options, KIND)
    if table is None:
        return ScannedState()
    generation = generation_of(table.at, source)
    stored = table.properties.get(property_of(SCAN, generation))
    if stored is None:
        raise StorageError(
            f"Dataset {dataset_id!r} is made from the changes of a stream, but its source "
            f"{source!r} has stream_enabled=False now.",
            safe="Nothing was read or written: a scan does not replace what a stream has made.",
            hint="Give the dataset a new id, or set stream_enabled=True again.",
        )
    return ScannedState(
        True, generation, erasures_of(table.at, source), ScanFacts.from_json(stored)
    )


def last_scan(layout: Layout, dataset_id: str, source: str) -> ScanFacts | None:
    """Return the scan that a dataset has the rows of; None before the first.

    Raises:
        StorageError: As `scanned_state`.
    """
    return scanned_state(layout, dataset_id, source).scan


def create_like(layout: Layout, target: Layout, dataset_id: str, source: str) -> None:
    """Create an empty table with columns and types of a dataset, if there is such a dataset.

    Raises:
        StorageError: The dataset can't be read, or the table can't be created.
    """
    table = opened(layout.dataset(dataset_id), layout.storage_options, KIND)
    if table is None:
        return
    generation, properties = generation_of(table.at, source), table.properties
    stored = {name: properties.get(property_of(name, generation)) for name in (MODE, ATTRIBUTES)}
    create_table(
        target.dataset(dataset_id),
        target.storage_options,
        KIND,
        table.schema,
        partition_by=table.partition_columns,
        configuration={name: value for name, value in stored.items() if value is not None},
    )
