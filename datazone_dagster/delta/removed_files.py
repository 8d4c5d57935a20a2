"""Removed files that the log still names: those that old versions need."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from datazone_dagster.delta.log_checkpoint import conformed
from datazone_dagster.delta.log_files import (
    LOG,
    Action,
    checkpoint_actions,
    entry_actions,
    entry_path,
    last_checkpoint,
)
from datazone_dagster.delta.transaction_log import Snapshot


def checkpoint_path(version: int) -> str:
    """Return the path of a version's checkpoint of one file, relative to the table."""
    return f"{LOG}/{version:020d}.checkpoint.parquet"


def removes_in_checkpoint(snapshot: Snapshot) -> pa.StructArray | None:
    """Return the remove actions of the checkpoint that a snapshot was read from; None: it had none.

    Raises:
        FileNotFoundError: The checkpoint is gone, or it has several files.
        OSError: The store failed.
        pa.ArrowInvalid: The checkpoint is damaged, or has types that we do not know.
    """
    if snapshot.checkpoint_version is None:
        return None
    with snapshot.store.open_small(checkpoint_path(snapshot.checkpoint_version)) as handle:
        parquet = pq.ParquetFile(handle)
        if "remove" not in parquet.schema_arrow.names:
            return None
        found = parquet.read(columns=["remove"])["remove"].combine_chunks()
    return conformed(found.drop_null())


def removals(snapshot: Snapshot) -> Iterator[Action]:
    """Yield the remove actions still in the log: they name the files that old versions need."""
    store = snapshot.store
    checkpoint = last_checkpoint(store, snapshot.version)
    if checkpoint is not None:
        for action in checkpoint_actions(store, checkpoint, ("remove", "sidecar")):
            if action.get("remove") is not None:
                yield action["remove"]
    after = -1 if checkpoint is None else checkpoint.version
    for number in range(after + 1, snapshot.version + 1):
        content = store.read(entry_path(number))
        for action in () if content is None else entry_actions(content):
            if action.get("remove") is not None:
                yield action["remove"]
