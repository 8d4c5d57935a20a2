"""Planning of intervals, compared with the brute-force model, without a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
    late_keys,
    payload_schema,
    plan_history,
)
from datazone_dagster.model.column_names import KEY, VALID_TO, VERSION
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
        with opened() as connection:
            existing = self.rows.select([KEY, VERSION, VALID_TO])
            late = late_keys(connection, batch.keyed_changes, existing, recent)
        keys = pc.unique(batch.keyed_changes[KEY].combine_chunks())
        existing = self.rows.filter(pc.is_in(self.rows[KEY], keys))
        highest = existing.group_by(KEY).aggregate([(VERSION, "max")])
        last = pc.is_in(existing[VERSION], highest[f"{VERSION}_max"].combine_chunks())
        existing = existing.filter(pc.or_(last, pc.is_in(existing[KEY], late)))
        absorbed = self.absorbed.filter(pc.is_in(self.absorbed[KEY], late))
        with opened() as connection:
            plan = plan_history(
                connection, batch, existing, absorbed, table=TABLE, track=self.track
            )
        self.rows = pa.concat_tables([_without(self.rows, plan.removed), plan.rows])
        self.absorbed = pa.concat_tables([_without(self.absorbed, plan.absorbed), plan.absorbed])
        return plan

    def intervals(self) -> set[Interval]:
        return intervals_of(self.rows.to_pylist())


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


@settings(max_examples=examples(40), deadline=None)
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


@settings(max_examples=examples(20), deadline=None)
@given(script=scripts())
def test_large_values_are_compared_by_digest_with_the_same_result(
    script: tuple[list[Change], list[list[Change]]],
) -> None:
    """Values of every type, nulls among them: all of them count as large here."""
    _, chunks = script
    history, seen = InMemoryHistory(), list[Change]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datazone_dagster.dataset.history._LARGE_VALUE_BYTES", -1)
        for chunk in chunks:
            history.apply(chunk)
            seen += chunk
            assert history.intervals() == intervals(seen, (0, 1))
