"""What the tables of a lakehouse say: positions, gaps, rows, without any change of them."""

from __future__ import annotations

import pyarrow as pa

from datazone_dagster.changelog.gap_acceptance import gap_notes
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.numbering import BY_COMMIT
from datazone_dagster.dataset.dataset_table import DatasetTable
from datazone_dagster.dataset.known_position import dataset_state
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.dataset.read_dataset import DatasetReader, read
from datazone_dagster.delta.store_errors import converts_errors
from datazone_dagster.errors import StorageError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import Gap


@converts_errors("Opening a dataset")
def open_dataset(layout: Layout, dataset_id: str, version: int | None = None) -> DatasetReader:
    """Open a dataset for reading, at one version of its table; the default is the newest.

    Raises:
        StorageError: There is no such table or version, or it can't be read.
    """
    reader = read(layout, dataset_id, version)
    if reader is None:
        raise StorageError(
            f"Dataset {dataset_id!r} has no table at {layout.dataset(dataset_id)} yet.",
            hint="The first run of the transform that writes it creates the table.",
        )
    return reader


@converts_errors("Looking for gaps")
def open_gaps(source_name: str, layout: Layout) -> tuple[Gap, ...]:
    """Return the gaps of a source that nobody accepted or repaired.

    Raises:
        StorageError: The lakehouse can't be read.
    """
    return tuple(note.gap for note in gap_notes(source_name, layout) if note.is_open)


@converts_errors("Counting quarantined records")
def records_waiting(source_name: str, dataset_id: str, layout: Layout) -> int:
    """Return the number of records in the quarantine of a dataset."""
    table = DatasetTable(layout, dataset_id, source_name, mode="merge")
    return Quarantine(layout, dataset_id).waiting_count(table.redriven())


@converts_errors("Reading a dataset")
def read_dataset(layout: Layout, dataset_id: str) -> pa.Table:
    """Return all rows of a dataset, hidden columns included.

    Raises:
        StorageError: There is no such table, or it can't be read.
    """
    return open_dataset(layout, dataset_id).arrow()


@converts_errors("Opening a change log")
def change_log_exists(source_name: str, layout: Layout) -> bool:
    """Return whether a source has a change log.

    Raises:
        StorageError: The lakehouse can't be read.
    """
    return ChangeLog(layout, source_name).open() is not None


@converts_errors("Opening a change log")
def change_log_head(source_name: str, layout: Layout) -> int | None:
    """Return the latest batch in the change log of a source; None if there is no change log.

    Raises:
        StorageError: The lakehouse can't be read.
    """
    log = ChangeLog(layout, source_name).open()
    return None if log is None else log.head


@converts_errors("Opening a change log")
def was_drained_by_runs(layout: Layout, source_name: str) -> bool:
    """Return whether drain runs have ever written the change log of a source, or may have.

    It costs no request where this process has opened the change log before.

    Raises:
        StorageError: The lakehouse can't be read.
    """
    log = ChangeLog(layout, source_name).known()
    return log is not None and BY_COMMIT in log.properties


@converts_errors("Opening a dataset")
def dataset_exists(layout: Layout, dataset_id: str) -> bool:
    """Return whether a dataset has a table.

    Raises:
        StorageError: The lakehouse can't be read.
    """
    state = dataset_state(layout, dataset_id)
    return (state.seen() or state.now()) is not None
