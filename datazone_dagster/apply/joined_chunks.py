"""Several chunks with every change as one, so that a dataset is merged once for all of them.

A function that reads its rows sees as many changes at a time as memory allows, images included.
What remains of them for a merge is the latest change of each key and its rows: far less where keys
repeat. So the results of consecutive chunks are collapsed and committed together. The dataset is
as if they had been merged one after another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.apply.chunk import ChunkFacts, FunctionResult, Prepared, ReadReport
from datazone_dagster.apply.parts import PartResult, joined
from datazone_dagster.dataset.latest import latest_rows
from datazone_dagster.model.column_names import HIDDEN, KEY, VERSION, Log
from datazone_dagster.rows.change_ids import change_ids

_MERGED = (*HIDDEN, Log.BATCH, Log.EVENT_NAME, Log.SIZE_BYTES, Log.USER_TYPE, Log.USER_PRINCIPAL)
"""Columns of the changes that a merge needs."""

_FEWEST_BYTES = 16 << 20


class JoinedChunks:
    """Results of consecutive chunks of which nothing is refused, collapsed as they come.

    Args:
        first: Result for the first chunk.
        read: What the function's frames found in it.
    """

    def __init__(self, first: Prepared, read: ReadReport) -> None:
        self._first = first
        self._facts = first.facts
        self._pending = [PartResult(_merged_columns(first.result), read)]
        self._collapsed_bytes = 0
        self._chunks = 1
        self._read = read

    @property
    def takes_more(self) -> bool:
        """Whether further chunks may be added."""
        return self._first.is_clean

    @property
    def last_batch(self) -> int:
        """Last batch so far."""
        return self._facts.last_batch

    def fits(self, more: Prepared) -> bool:
        """Return whether a further chunk can be added: its rows have the same columns."""
        known = self._pending[0].result.rows
        return more.is_clean and _schemas(more.result.rows) == _schemas(known)

    def add(self, more: Prepared, read: ReadReport) -> None:
        """Add the chunk that follows."""
        self._pending.append(PartResult(_merged_columns(more.result), read))
        self._facts = _facts_of(self._facts, more.facts)
        self._chunks += 1
        if self._bytes() > max(_FEWEST_BYTES, 2 * self._collapsed_bytes):
            self._collapse()

    def retains_less_than(self, most_bytes: int) -> bool:
        """Return whether what remains of the chunks takes less memory than this."""
        if most_bytes and self._bytes() >= most_bytes:
            self._collapse()
        return self._bytes() < most_bytes

    def prepared(self) -> tuple[Prepared, ReadReport]:
        """Return all chunks as one, and what the frames found in them."""
        if self._chunks == 1:
            return self._first, self._read
        self._collapse()
        (whole,) = self._pending
        return replace(self._first, facts=self._facts, result=whole.result), whole.read

    def _collapse(self) -> None:
        if len(self._pending) == 1 and self._collapsed_bytes:
            return
        whole = joined(self._pending)
        self._pending = [replace(whole, result=latest_rows_of(whole.result))]
        self._collapsed_bytes = self._bytes()

    def _bytes(self) -> int:
        return sum(
            one.result.changes.nbytes + sum(rows.nbytes for rows in one.result.rows.values())
            for one in self._pending
        )


def latest_rows_of(result: FunctionResult) -> FunctionResult:
    """Return the latest change of each key, and its rows.

    A row of a change that the function was not given stays, so that the merge refuses it.
    """
    changes = result.changes
    positions = latest_rows(changes[KEY], changes[VERSION])
    if len(positions) == len(changes):
        return result
    latest = np.zeros(len(changes), bool)
    latest[positions.to_numpy()] = True

    def of_latest(rows: pa.Table) -> pa.Table:
        if all(rows[name].equals(changes[name]) for name in (KEY, VERSION)):  # a row per change
            return rows.take(positions)
        given = change_ids(changes).combine_chunks()
        at = pc.fill_null(pc.index_in(change_ids(rows), value_set=given), -1).to_numpy()
        return rows.filter(pa.array((at < 0) | latest[at]))

    rows = {output: of_latest(table) for output, table in result.rows.items()}
    return replace(result, changes=changes.take(positions), rows=rows)


def _merged_columns(result: FunctionResult) -> FunctionResult:
    names = [name for name in _MERGED if name in result.changes.column_names]
    return replace(result, changes=result.changes.select(names))


def _schemas(rows: Mapping[str, pa.Table]) -> dict[str, pa.Schema]:
    return {output: table.schema for output, table in rows.items()}


def _facts_of(one: ChunkFacts, other: ChunkFacts) -> ChunkFacts:
    def bound(times: tuple[datetime | None, ...], *, last: bool) -> datetime | None:
        found = [time for time in times if time is not None]
        return None if not found else max(found) if last else min(found)

    return ChunkFacts(
        one.first_batch,
        other.last_batch,
        one.records + other.records,
        one.record_bytes + other.record_bytes,
        one.decoded_bytes + other.decoded_bytes,
        bound((one.event_time_min, other.event_time_min), last=False),
        bound((one.event_time_max, other.event_time_max), last=True),
    )
