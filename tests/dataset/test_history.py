"""Planning of intervals, compared with the brute-force model, without a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.database.database import opened
from datazone_dagster.dataset.history import (
    DELETION_FIELDS,
    INTERVAL_FIELDS,
    HistoryPlan,
    payload_schema,
    plan_history,
)
from datazone_dagster.dataset.history_newer import NewerChanges
from datazone_dagster.dataset.history_split import divided
from datazone_dagster.dataset.key_order import are_last, keys_before_ends, late_keys
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.rows.merge_batch import CAUSE, EACH_CHANGE_SCHEMA, MergeBatch
from tests.dataset.history_model import Change, Interval, intervals, scripts
from tests.examples import examples

TIME = pa.timestamp("us", tz="UTC")
TABLE = pa.schema(
    [
        ("status", pa.string()),
        ("note", pa.int64()),
        ("_dz_key", pa.string()),
        ("_dz_version", pa.string()),
        ("_dz_event_time", TIME),
        *INTERVAL_FIELDS,
        *DELETION_FIELDS,
    ]
)
PAYLOAD = payload_schema(TABLE)


def batch_of(changes: Sequence[Change]) -> MergeBatch:
    return MergeBatch(
        pa.Table.from_pylist(
            [
                {
                    "_dz_key": change.key,
                    "_dz_version": change.version,
                    "cause": change.cause,
                    "_dz_event_time": change.time,
                }
                for change in changes
            ],
            schema=EACH_CHANGE_SCHEMA,
        ),
        pa.Table.from_pylist(
            [
                {
                    "status": status,
                    "note": note,
                    "_dz_key": change.key,
                    "_dz_version": change.version,
                    "_dz_event_time": change.time,
                }
                for change in changes
                for status, note in change.rows
            ],
            schema=PAYLOAD,
        ),
    )


class InMemoryHistory:
    """A history table and its absorbed changes in memory; a plan gets only what it needs."""

    def __init__(self, track: tuple[str, ...] = ()) -> None:
        self.rows = TABLE.empty_table()
        self.absorbed = PAYLOAD.append(pa.field(CAUSE, pa.string())).empty_table()
        self.track = track

    def apply(self, changes: Sequence[Change]) -> HistoryPlan:
        batch = batch_of(changes)
        lowest = pc.min(batch.keyed_changes[VERSION])
        recent = self.absorbed.filter(pc.greater_equal(self.absorbed[VERSION], lowest))
        keys = pc.unique(batch.keyed_changes[KEY].combine_chunks())
        existing = self.rows.filter(pc.is_in(self.rows[KEY], keys))
        last = pa.array(are_last(existing))
        known = pa.concat_tables([one.select([KEY, VERSION]) for one in (existing, recent)])
        late = pa.concat_arrays(
            [
                late_keys(batch.keyed_changes, known),
                keys_before_ends(batch.keyed_changes, existing.filter(last)),
            ]
        )
        existing = existing.filter(pc.or_(last, pc.is_in(existing[KEY], late)))
        absorbed = self.absorbed.filter(pc.is_in(self.absorbed[KEY], late))
        plan = plan_history(opened, batch, existing, absorbed, table=TABLE, track=self.track)
        self.check(plan, batch, existing, absorbed)
        self.rows = pa.concat_tables([_without(self.rows, plan.removed), plan.rows])
        self.absorbed = pa.concat_tables([_without(self.absorbed, plan.absorbed), plan.absorbed])
        return plan

    def check(
        self, plan: HistoryPlan, batch: MergeBatch, existing: pa.Table, absorbed: pa.Table
    ) -> None:
        """Plan again by the queries alone: the result is the same."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("datazone_dagster.dataset.history.divided", nothing_newer)
            again = plan_history(opened, batch, existing, absorbed, table=TABLE, track=self.track)
        assert plan.counts == again.counts
        for ours, others in zip(plan_tables(plan), plan_tables(again), strict=True):
            assert rows_in_order(ours) == rows_in_order(others)

    def intervals(self) -> set[Interval]:
        return intervals_of(self.rows.to_pylist())


def nothing_newer(
    batch: MergeBatch, existing: pa.Table, absorbed: pa.Table, rows_before: int
) -> tuple[NewerChanges, pa.Array]:
    newer, _ = divided(batch, existing, absorbed, rows_before)
    none = np.zeros(0, np.int64)
    keys = pc.unique(batch.keyed_changes[KEY].combine_chunks())
    return NewerChanges(
        existing, none, none, newer.changes, none, none, none, newer.key_count
    ), keys


def plan_tables(plan: HistoryPlan) -> tuple[pa.Table, pa.Table, pa.Table]:
    return plan.removed, plan.rows, plan.absorbed


def rows_in_order(table: pa.Table) -> list[str]:
    return sorted(map(repr, table.to_pylist()))


def intervals_of(rows: Iterable[dict[str, object]]) -> set[Interval]:
    grouped: dict[tuple[object, ...], list[tuple[object, object]]] = {}
    for row in rows:
        assert row["_dz_is_current"] == (row["_dz_valid_to"] is None)
        assert row["_dz_deleted"] == (row["_dz_delete_cause"] is not None)
        interval = (
            row["_dz_key"],
            row["_dz_version"],
            row["_dz_valid_from"],
            row["_dz_valid_to"],
            row["_dz_delete_cause"],
        )
        grouped.setdefault(interval, []).append((row["status"], row["note"]))
    return {
        Interval(key, version, tuple(sorted(values)), start, end, cause)  # type: ignore[arg-type] # plain rows
        for (key, version, start, end, cause), values in grouped.items()
    }


def _without(rows: pa.Table, removed: pa.Table) -> pa.Table:
    listed = {(row[KEY], row[VERSION]) for row in removed.select([KEY, VERSION]).to_pylist()}
    stays = [
        (key, version) not in listed
        for key, version in zip(rows[KEY].to_pylist(), rows[VERSION].to_pylist(), strict=True)
    ]
    return rows.filter(pa.array(stays, pa.bool_()))


@settings(max_examples=examples(24), deadline=None)
@given(script=scripts(), tracked=st.sampled_from([(), ("status",)]))
def test_any_order_rechunking_and_replay_gives_the_intervals_of_the_model(
    script: tuple[list[Change], list[list[Change]]], tracked: tuple[str, ...]
) -> None:
    _, chunks = script
    history = InMemoryHistory(tracked)
    seen: list[Change] = []
    for chunk in chunks:
        history.apply(chunk)
        seen += chunk
        assert history.intervals() == intervals(seen, (0,) if tracked else (0, 1))


@settings(max_examples=examples(12), deadline=None)
@given(script=scripts())
def test_large_values_are_compared_by_digest_with_the_same_result(
    script: tuple[list[Change], list[list[Change]]],
) -> None:
    """Values of every type, nulls among them: all of them count as large here."""
    _, chunks = script
    history, seen = InMemoryHistory(), list[Change]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datazone_dagster.dataset.history_queries._LARGE_VALUE_BYTES", -1)
        for chunk in chunks:
            history.apply(chunk)
            seen += chunk
            assert history.intervals() == intervals(seen, (0, 1))


def test_newer_changes_with_a_row_each_are_planned_without_a_database() -> None:
    """Queries take ten times as long: only late changes and several rows a change need them."""

    def refused() -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        raise AssertionError("a database was opened")

    def change(key: str, number: int, status: str | None) -> Change:
        rows = () if status is None else ((status, 1),)
        return Change(key, number, number, rows, None if rows else "user")

    history = InMemoryHistory()
    history.apply([change("a", 1, "new"), change("b", 2, "new"), change("b", 3, None)])
    newer = [change("a", 4, "new"), change("a", 5, "paid"), change("b", 6, "paid")]
    none = history.absorbed.slice(0, 0)
    plan = plan_history(refused, batch_of(newer), history.rows, none, table=TABLE)
    assert plan.counts.inserted == 2
    twice = pa.concat_tables([history.rows, history.rows])
    for changes, rows in (([change("a", 0, "late"), *newer], history.rows), (newer, twice)):
        with pytest.raises(AssertionError, match="opened"):
            plan_history(refused, batch_of(changes), rows, none, table=TABLE)
