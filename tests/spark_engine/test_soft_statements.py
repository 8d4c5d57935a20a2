"""What Spark decides about soft deletes is what the library's own plan says, for any changes.

The statements are run by DuckDB here, which reads them after a few words are replaced.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import duckdb
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.dataset.soft_delete import plan_soft
from datazone_dagster.rows.merge_batch import CAUSE, EACH_CHANGE_SCHEMA
from datazone_dagster.spark.soft_statements import SoftStatements
from datazone_dagster.spark.statements import LEFT
from tests.examples import examples

TIME = pa.timestamp("us", tz="UTC")
EXISTING = pa.schema(
    [
        ("_dz_key", pa.string()),
        ("_dz_version", pa.string()),
        ("_dz_event_time", TIME),
        ("_dz_deleted", pa.bool_()),
        ("_dz_delete_cause", pa.string()),
    ]
)
TOMBSTONES = pa.schema(
    [
        ("_dz_key", pa.string()),
        ("_dz_version", pa.string()),
        ("cause", pa.string()),
        ("_dz_event_time", TIME),
        ("image_version", pa.string()),
    ]
)
WORDS = {
    "LEFT SEMI JOIN": "SEMI JOIN",
    "LEFT ANTI JOIN": "ANTI JOIN",
    "struct(": "row(",
    " <=> ": " IS NOT DISTINCT FROM ",
    "delta.`rows`": "existing_rows",
    "delta.`tombs`": "tombstones",
}
KEYS = st.sampled_from("ab")
IMAGES = st.sampled_from(["1", "3", "5", "7"])
"""Versions of images; those of deletes are the others, each with its cause."""

DELETES = st.sampled_from([("2", "user"), ("4", "ttl"), ("6", "resync_absent"), ("8", "user")])
TIMES = st.integers(0, 5).map(lambda at: datetime(2026, 1, 1, 0, at, tzinfo=timezone.utc))

IMAGE = st.tuples(IMAGES, st.sampled_from([None, "filtered"]))
CHANGES = st.lists(
    st.tuples(KEYS, IMAGE | DELETES, TIMES).map(lambda one: (one[0], *one[1], one[2])),
    min_size=1,
    max_size=8,
    unique_by=lambda change: change[:2],
)
LIVE = IMAGES.map(lambda version: (version, None))
ROWS = st.lists(st.tuples(KEYS, LIVE | DELETES, TIMES), max_size=2, unique_by=lambda row: row[0])
GONE = st.lists(
    st.tuples(KEYS, DELETES, TIMES, st.none() | IMAGES).map(lambda one: (one[0], *one[1], *one[2:]))
    | st.tuples(KEYS, IMAGES, st.just("filtered"), TIMES, st.none()),
    max_size=5,
)


def run(connection: duckdb.DuckDBPyConnection, statement: str) -> list[tuple[Any, ...]]:
    for word, other in WORDS.items():
        statement = statement.replace(word, other)
    return sorted(connection.execute(statement).fetchall(), key=repr)


def table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(
        [dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema
    )


@settings(max_examples=examples(60), deadline=None)
@given(changes=CHANGES, rows=ROWS, gone=GONE)
def test_any_changes(
    changes: list[tuple[Any, ...]], rows: list[tuple[Any, ...]], gone: list[tuple[Any, ...]]
) -> None:
    keyed = table(changes, EACH_CHANGE_SCHEMA)
    existing = table(
        [(key, at, time, cause is not None, cause) for key, (at, cause), time in rows], EXISTING
    )
    tombstones = table(gone, TOMBSTONES)
    with duckdb.connect() as ours:
        plan = plan_soft(ours, keyed, existing, tombstones)
    soft = SoftStatements("batch", "rows", "tombs")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("batch", keyed.rename_columns({CAUSE: LEFT}))
        connection.register("existing_rows", existing)
        connection.register("tombstones", tombstones)
        run(connection, f"CREATE TABLE decided AS {soft.decided()}")
        counts = plan.counts
        ((*found, _),) = run(connection, soft.facts("decided"))
        assert found == [counts.inserted, counts.updated, counts.deleted]
        removed = run(
            connection,
            "SELECT _dz_key, existing_version FROM decided "
            "WHERE changes AND existing_version IS NOT NULL",
        )
        assert removed == shown(plan.removed)
        for image, planned in (("new", plan.from_chunk), ("existing", plan.from_table)):
            at = "image_version" if image == "new" else "existing_version"
            added = run(
                connection,
                f"SELECT _dz_key, {at}, final_version, final_time, final_cause FROM decided "
                f"WHERE changes AND image = '{image}'",
            )
            assert added == shown(planned)
        written = soft.tombstones_statement("decided", datetime(2026, 1, 1, tzinfo=timezone.utc))
        names = "_dz_key, _dz_version, cause, _dz_event_time, image_version"
        new = written.partition(" FROM (")[2].removesuffix(")")
        assert run(connection, f"SELECT {names} FROM ({new})") == shown(plan.tombstones)


def shown(rows: pa.Table) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("rows", rows)
        return run(connection, "SELECT * FROM rows")
