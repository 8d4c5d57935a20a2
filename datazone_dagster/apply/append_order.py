"""Order in append mode: a change waits behind an earlier, quarantined change of its key.

`model.quarantine_policy` decides which quarantined changes later ones wait behind, and why only in
append mode.
"""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.api import Dataset
from datazone_dagster.apply.applied_parts import are_applied
from datazone_dagster.apply.bad_records import refused_rows, without
from datazone_dagster.apply.chunk import FunctionResult
from datazone_dagster.dataset.dataset_progress import Progress
from datazone_dagster.dataset.dataset_table import DatasetTable
from datazone_dagster.dataset.deletes import are_ttl_deletes
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.items.key_slots import slots_of
from datazone_dagster.items.keys import key_column
from datazone_dagster.model.column_names import KEY, VERSION, Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.quarantine_policy import (
    WAITS,
    blocked_after,
    blocks_later_changes,
    keeps_order,
    waits,
)
from datazone_dagster.rows.change_ids import are_among
from datazone_dagster.rows.partition_values import has_refused


def waiting_keys(quarantined: pa.Table, dataset: Dataset) -> set[str]:
    """Return the keys of the quarantined changes that later changes of a dataset wait behind."""
    return set(_canonical(_blocking(quarantined, dataset)))


def keys_waited_for(
    dataset: Dataset, table: DatasetTable, layout: Layout, progress: Progress
) -> set[str]:
    """Return the keys that later changes of a dataset wait behind, as of its progress."""
    if not keeps_order(dataset.mode):
        return set()
    of_deletes = (Log.EVENT_NAME, Log.USER_PRINCIPAL)
    columns = (Log.KEYS, Log.VERSION, Log.REASON, Log.BATCH, *of_deletes)
    ahead = progress.ahead
    # Keys quarantined by an earlier attempt at this chunk are decided again.
    waiting = Quarantine(layout, dataset.id).waiting(
        table.redriven(),
        through_batch=max([progress.position, *(batch for _, batch in ahead)]),
        columns=columns,
    )
    if ahead:
        passed = pc.less_equal(waiting[Log.BATCH], progress.position).to_numpy()
        applied = are_applied(slots_of(waiting[Log.KEYS]), waiting, ahead)
        waiting = waiting.filter(pa.array(passed | applied))
    return waiting_keys(waiting, dataset)


def fit_contract(
    result: FunctionResult,
    dataset: Dataset,
    table: DatasetTable,
    output: str,
    partition_by: Collection[str],
) -> FunctionResult:
    """Return the result without the changes that the dataset, or a partition column, refuses."""
    refuses = dataset.contract.may_refuse or has_refused(result.rows[output], partition_by)
    return apply_contract(result, table, output) if refuses else result


def apply_contract(result: FunctionResult, table: DatasetTable, output: str) -> FunctionResult:
    """Return the result without the changes that the dataset's contract refuses."""
    changes, rows, refused = table.fitting(result.changes, result.rows[output])
    return FunctionResult(changes, {output: rows}, pa.concat_tables([result.refused, refused]))


def defer_later_changes(
    result: FunctionResult, waiting: Collection[str], output: str, dataset: Dataset
) -> FunctionResult:
    """Return the result without the changes, and their rows, that wait behind another change.

    Args:
        result: Result of the function for a chunk.
        waiting: Keys that wait in the quarantine since earlier chunks.
        output: Output whose rows are returned.
        dataset: Dataset of the output.
    """
    blocking = _blocking(result.refused, dataset)
    versions = blocking[Log.VERSION].to_pylist()
    after = blocked_after(waiting, zip(_canonical(blocking), versions, strict=True))
    if not after:
        return result
    changes, rows = result.changes, result.rows[output]
    deferred = {}
    # One array: on a column without chunks, PyArrow 25's `indices_nonzero` ends the process.
    is_affected = pc.is_in(changes[KEY].combine_chunks(), pa.array(list(after), pa.string()))
    for row in pc.indices_nonzero(is_affected).to_pylist():
        if waits(changes[KEY][row].as_py(), changes[VERSION][row].as_py(), after):
            deferred[row] = WAITS
    accepted = without(changes, deferred)
    return FunctionResult(
        accepted,
        {output: rows.filter(are_among(rows, accepted))},
        pa.concat_tables([result.refused, refused_rows(changes, deferred)]),
    )


def _blocking(quarantined: pa.Table, dataset: Dataset) -> pa.Table:
    """Return the quarantined changes that later changes wait behind.

    A redrive of a delete that the dataset ignores appends nothing: nothing waits for it.
    """
    if dataset.ttl_deletes == "ignore":
        quarantined = quarantined.filter(pc.invert(are_ttl_deletes(quarantined)))
    reasons = quarantined[Log.REASON]
    blocking = [one for one in reasons.unique().to_pylist() if blocks_later_changes(one)]
    return quarantined.filter(pc.is_in(reasons, pa.array(blocking, pa.string())))


def _canonical(changes: pa.Table) -> list[str]:
    keys, _ = key_column(changes[Log.KEYS])
    return [key for key in keys.to_pylist() if key is not None]
