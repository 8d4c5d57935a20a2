"""In append mode a change waits behind an earlier one of its key that was set aside.

Who reads an append table reads the events of a key in the order in which they got there, so a
later one must not pass one that still waits in the quarantine. In the other modes a row is the
state of its item, the highest version counts, and no change needs the one before it.
"""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.apply.bad_records import FUNCTION_FAILED, refused_rows, without
from datazone_dagster.apply.function import FunctionResult
from datazone_dagster.dataset.contract_refusals import CONTRACT_REFUSES
from datazone_dagster.dataset.dataset_table import DatasetTable
from datazone_dagster.items.keys import key_column
from datazone_dagster.model.column_names import KEY, VERSION, Log

WAITS = "it waits behind an earlier change of its key"
"""The reason of a change that the function takes, but whose turn has not come."""


def waiting_keys(quarantined: pa.Table) -> set[str]:
    """The keys of the quarantined changes that later ones wait behind."""
    return set(_canonical(quarantined.filter(_is_waited_for(quarantined))))


def let_in(taken: FunctionResult, table: DatasetTable, output: str) -> FunctionResult:
    """The same without the changes that the dataset's contract refuses."""
    changes, rows, refused = table.fitting(taken.changes, taken.rows[output])
    return FunctionResult(changes, {output: rows}, pa.concat_tables([taken.refused, refused]))


def hold_back(taken: FunctionResult, waiting: Collection[str], output: str) -> FunctionResult:
    """The same without the changes, and their rows, that wait behind another.

    Args:
        taken: What the function made of a chunk.
        waiting: Keys that wait in the quarantine from earlier chunks.
        output: Whose rows are kept.
    """
    first_failed: dict[str, str] = {}
    failed = taken.refused.filter(_is_waited_for(taken.refused))
    for key, version in zip(_canonical(failed), failed[Log.VERSION].to_pylist(), strict=True):
        first_failed[key] = min(version, first_failed.get(key, version))
    concerned = pa.array([*waiting, *first_failed], pa.string())
    if not len(concerned):
        return taken
    changes, rows = taken.changes, taken.rows[output]
    held = {}
    # One array: of a column without chunks PyArrow 25 can't tell the places, it ends the process.
    is_concerned = pc.is_in(changes[KEY].combine_chunks(), concerned)
    for row in pc.indices_nonzero(is_concerned).to_pylist():
        key, version = changes[KEY][row].as_py(), changes[VERSION][row].as_py()
        if key in waiting or version > first_failed[key]:
            held[row] = WAITS
    kept = without(changes, held)
    return FunctionResult(
        kept,
        {output: rows.filter(pc.is_in(_places(rows), _places(kept).combine_chunks()))},
        pa.concat_tables([taken.refused, refused_rows(changes, held)]),
    )


def _is_waited_for(quarantined: pa.Table) -> pa.ChunkedArray:
    reasons = quarantined[Log.REASON]
    refused = [pc.starts_with(reasons, start) for start in (FUNCTION_FAILED, CONTRACT_REFUSES)]
    return pc.or_(pc.or_(*refused), pc.equal(reasons, WAITS))


def _canonical(changes: pa.Table) -> list[str]:
    keys, _ = key_column(changes[Log.KEYS])
    return [key for key in keys.to_pylist() if key is not None]


def _places(rows: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(rows[VERSION], rows[KEY], "")
