"""Check of a rebuilt dataset before the swap: the change log is read once more, and compared."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.api import Dataset, Transform
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.dataset.dataset_table import KIND
from datazone_dagster.dataset.deletes import are_deletes, are_ttl_deletes
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.dataset.rebuild_proof import CHANGES, ROWS, RebuildProof, prove
from datazone_dagster.delta import guarded
from datazone_dagster.delta.table import Table, opened
from datazone_dagster.errors import StorageError
from datazone_dagster.items.keys import key_column
from datazone_dagster.model.column_names import DELETED, IS_CURRENT, KEY, VERSION, Log
from datazone_dagster.model.layout import Layout

_COLUMNS = (
    Log.BATCH,
    Log.KEYS,
    Log.VERSION,
    Log.EVENT_NAME,
    Log.USER_PRINCIPAL,
    Log.REASON,
)
_CHUNK_BYTES = 32 << 20


def proven(
    transform: Transform,
    dataset: Dataset,
    layout: Layout,
    target: Layout,
    through_batch: int,
    *,
    after_batch: int = 0,
) -> RebuildProof:
    """Compare a rebuilt table with the change log.

    Args:
        transform: Transform that writes the dataset.
        dataset: The dataset.
        layout: Lakehouse of the change log.
        target: Lakehouse of the rebuilt table.
        through_batch: Last batch that the rebuilt table has applied.
        after_batch: Batch after which it begins.

    Raises:
        StorageError: They contradict each other, or can't be read.
    """
    uri = target.dataset(dataset.id)
    table = opened(uri, target.storage_options, KIND)
    log = ChangeLog(layout, transform.source).open()
    if table is None or log is None:
        raise StorageError(
            f"The rebuilt table of dataset {dataset.id!r} or its change log is gone.",
            safe="The dataset is as it was.",
            hint="Rebuild again.",
        )
    quarantined, _ = key_column(Quarantine(target, dataset.id).waiting()[Log.KEYS])
    with guarded(uri, f"Comparing rebuilt dataset {dataset.id!r} with the change log"):
        proof = prove(
            _changes(log, after_batch, through_batch, dataset),
            _rows(table),
            quarantined,
            dataset.mode,
            is_complete=log.truncated_through <= after_batch,
        )
    if proof.wrong:
        raise StorageError(
            f"Rebuilt dataset {dataset.id!r} contradicts the change log in {proof.wrong:,} of "
            f"{proof.keys:,} keys, such as {', '.join(proof.examples)}: their rows are not those "
            "of the last change.",
            safe="The dataset is as it was; the rebuilt table is discarded.",
            hint="This is a fault of the library or of a file in the store, not of your function. "
            "Rebuild again; if it stays, please report it with these keys.",
        )
    return proof


def _rows(table: Table) -> Iterator[pa.RecordBatch]:
    """Yield key, version and marks of every row."""
    marks = [one for one in (DELETED, IS_CURRENT) if one in table.schema.names]
    defaults = {DELETED: pa.scalar(False), IS_CURRENT: pa.scalar(True)}
    for batch in table.scan([KEY, VERSION, *marks]):
        rows = pa.table(batch)
        columns = [
            pc.fill_null(rows[name], default) if name in marks else pa.repeat(default, len(rows))
            for name, default in defaults.items()
        ]
        texts = [rows[name].cast(pa.string()) for name in (KEY, VERSION)]
        yield from pa.Table.from_arrays([*texts, *columns], schema=ROWS).to_batches()


def _changes(
    log: ChangeLogSnapshot, after_batch: int, through_batch: int, dataset: Dataset
) -> Iterator[pa.RecordBatch]:
    """Yield key, version and kind of every change that counts for the dataset.

    Changes that were truncated while the rebuild read them are left out.
    """
    start = max(after_batch, min(log.truncated_through, through_batch))
    for chunk in log.chunks(start, through_batch, _CHUNK_BYTES, columns=_COLUMNS):
        rows = chunk.rows.filter(pc.is_null(chunk.rows[Log.REASON]))
        if dataset.ttl_deletes == "ignore":
            rows = rows.filter(pc.invert(are_ttl_deletes(rows)))
        keys, _ = key_column(rows[Log.KEYS])
        changes = pa.table([keys, rows[Log.VERSION], are_deletes(rows)], schema=CHANGES)
        yield from changes.to_batches()
