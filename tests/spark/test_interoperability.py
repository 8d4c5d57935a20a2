"""Our tables in Spark, Polars and delta-rs: the same rows, whoever wrote last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from datazone_dagster.dataset.dataset_table import DatasetTable
from datazone_dagster.delta.log_files import LOG
from datazone_dagster.delta.log_upkeep import make_checkpoint
from datazone_dagster.delta.table import opened
from datazone_dagster.delta.transaction_log import read_snapshot
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.version import row_version
from datazone_dagster.rows.maintenance_plan import MaintenanceSettings
from datazone_dagster.rows.table_maintenance import KIND, maintain

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]

TIME = pa.timestamp("us", tz="UTC")
HIDDEN = [("_dz_key", pa.string()), ("_dz_version", pa.string()), ("_dz_event_time", TIME)]
CHANGES = pa.schema([*HIDDEN, ("event_name", pa.string()), ("user_principal", pa.string())])
ROWS = pa.schema(
    [
        ("id", pa.string()),
        ("region", pa.string()),
        ("total", pa.decimal128(38, 9)),
        ("count", pa.int64()),
        ("share", pa.float64()),
        ("open", pa.bool_()),
        ("raw", pa.binary()),
        ("at", TIME),
        ("tags", pa.list_(pa.string())),
        ("address", pa.struct([("street", pa.string()), ("number", pa.int32())])),
        *HIDDEN,
    ]
)
EAGER = replace(MaintenanceSettings(), join_files=2, hidden_share=0.01, checkpoint_commits=1)
Mode = Literal["merge", "append", "history"]
Row = dict[str, Any]


class Written:
    """A dataset that chunks of numbered changes are applied to."""

    def __init__(
        self,
        root: Path,
        mode: Mode = "merge",
        deletes: Literal["hard", "soft"] = "hard",
        *,
        vectors: bool,
        partition_by: tuple[str, ...] = (),
    ) -> None:
        self.layout = Layout(str(root))
        self.table = DatasetTable(
            self.layout,
            "t",
            "source",
            mode=mode,
            deletes=deletes,
            partition_by=partition_by,
            deletion_vectors=vectors,
        )
        self.uri = self.table.uri

    def apply(self, number: int, puts: Sequence[int], deletes: Sequence[int] = ()) -> None:
        """Change `number` puts some keys and deletes others."""
        events = [_hidden(key, number) | {"event_name": "MODIFY"} for key in puts]
        events += [_hidden(key, number) | {"event_name": "REMOVE"} for key in deletes]
        position = self.table.position()
        self.table.apply(
            pa.Table.from_pylist(events, schema=CHANGES),
            pa.Table.from_pylist([_row(key, number) for key in puts], schema=ROWS),
            after_batch=position,
            through_batch=position + 1,
            now=datetime.now(timezone.utc),
        )

    def maintain(self) -> None:
        report = maintain(self.layout, "t", EAGER, datetime.now(timezone.utc))
        assert report is not None
        assert not report.lost_race

    def only_checkpoint(self) -> int:
        """Write a checkpoint of ours, and delete all entries before its version."""
        table = opened(self.uri, {}, KIND)
        assert table is not None
        at = make_checkpoint(table.kept, table.at)
        log = Path(self.uri) / LOG
        assert "sidecar" not in pq.read_schema(log / f"{at.version:020d}.checkpoint.parquet").names
        for entry in log.glob("*.json"):
            if int(entry.stem) < at.version:
                entry.unlink()
        return at.version

    @property
    def version(self) -> int:
        return DeltaTable(self.uri).version()


def _hidden(key: int, number: int) -> Row:
    return {
        "_dz_key": f"k{key}",
        "_dz_version": row_version(1, 10**24 + number),
        "_dz_event_time": datetime(2026, 1, 1, 0, number % 60, tzinfo=timezone.utc),
    }


def _row(key: int, number: int) -> Row:
    rich = key % 3
    return _hidden(key, number) | {
        "id": f"k{key}",
        "region": ["eu", "us", None][rich],
        "total": Decimal(number) + Decimal("0.000000001") if rich else None,
        "count": number * (1 << 40),
        "share": float("nan") if key == 5 else number / 7,
        "open": number % 2 == 0,
        "raw": bytes([key, number]) if rich else None,
        "at": datetime(2026, 2, 3, 4, 5, number % 60, 678901, tzinfo=timezone.utc),
        "tags": [f"t{number}", "ä"] if rich else [],
        "address": {"street": "Main", "number": key} if rich else None,
    }


def shown(rows: pa.Table) -> list[str]:
    """Rows in a form that compares NaN, and does not depend on order or on Arrow's variants."""
    names = sorted(rows.column_names)
    found = []
    for row in rows.select(names).to_pylist():
        values = [
            value.astimezone(timezone.utc).isoformat() if isinstance(value, datetime) else value
            for value in row.values()
        ]
        found.append(repr(values))
    return sorted(found)


def by_spark(spark: Any, uri: str, version: int) -> list[str]:
    frame = spark.read.format("delta").option("versionAsOf", version).load(uri)
    return shown(frame.toArrow())


def by_delta_rs(uri: str, version: int) -> list[str]:
    return shown(pa.table(DeltaTable(uri, version=version).scan()))


def by_polars(uri: str, version: int) -> list[str]:
    return shown(pl.scan_delta(uri, version=version).collect().to_arrow())


def same_everywhere(spark: Any, written: Written, versions: Sequence[int] = ()) -> list[str]:
    """Compare at some versions, by default the newest, whose rows are returned."""
    rows: list[str] = []
    for version in versions or [written.version]:
        rows = by_delta_rs(written.uri, version)
        assert by_spark(spark, written.uri, version) == rows, f"Spark at version {version}"
        assert by_polars(written.uri, version) == rows, f"Polars at version {version}"
    return rows


def some_merges(written: Written, first: int = 1) -> None:
    written.apply(first, range(20))
    written.apply(first + 1, [1, 3, 5, 7, 30], [2, 4])
    written.apply(first + 2, [1, 2, 31], [5, 30])


@pytest.mark.parametrize(
    ("mode", "deletes", "vectors", "partition_by"),
    [
        ("merge", "hard", True, ()),
        ("merge", "hard", True, ("region",)),
        ("merge", "hard", False, ()),
        ("merge", "soft", True, ()),
        ("history", "soft", True, ()),
        ("append", "hard", False, ("region",)),
    ],
)
def test_every_version_of_every_mode_and_after_maintenance(
    spark: Any,
    tmp_path: Path,
    mode: Mode,
    deletes: Literal["hard", "soft"],
    vectors: bool,
    partition_by: tuple[str, ...],
) -> None:
    written = Written(tmp_path, mode, deletes, vectors=vectors, partition_by=partition_by)
    some_merges(written)
    snapshot = read_snapshot(DeltaTable(written.uri), {})
    assert (snapshot.deleted_rows > 0) == vectors
    versions = range(1, written.version + 1)
    before = same_everywhere(spark, written, versions)
    # A checkpoint while there are vectors, from which everyone reads on.
    DeltaTable(written.uri).create_checkpoint()
    assert same_everywhere(spark, written, versions) == before
    written.maintain()
    assert read_snapshot(DeltaTable(written.uri), {}).deleted_rows == 0
    assert same_everywhere(spark, written, [*versions, written.version]) == before
    some_merges(written, first=20)
    same_everywhere(spark, written)


@pytest.mark.parametrize("vectors", [True, False])
def test_spark_writes_in_between(spark: Any, tmp_path: Path, vectors: bool) -> None:
    written = Written(tmp_path, vectors=vectors)
    some_merges(written)
    table = f"delta.`{written.uri}`"
    spark.sql(
        f"merge into {table} t using (select 'k6' as id) s on t.id = s.id "
        "when matched then update set t.count = -6"
    )
    spark.sql(f"delete from {table} where id = 'k8'")
    rows = same_everywhere(spark, written)
    assert sum("-6" in row for row in rows) == 1
    # Ours again, over Spark's rows and vectors; what it deleted comes back with its next change.
    written.apply(10, [6, 8, 9], [10])
    rows = same_everywhere(spark, written)
    assert not any("-6" in row for row in rows)
    assert sum("'k8'" in row for row in rows) == 1
    spark.sql(f"optimize {table}")
    assert same_everywhere(spark, written) == rows
    written.apply(11, [6, 11, 40], [9])
    expected = len(rows) + 1 - 1
    assert len(same_everywhere(spark, written)) == expected
    written.maintain()
    same_everywhere(spark, written)
    spark.sql(f"alter table {table} add columns (note string)")
    written.apply(12, [6], [])
    assert len(same_everywhere(spark, written)) == expected


@pytest.mark.parametrize("vectors", [True, False])
def test_change_data_feed(spark: Any, tmp_path: Path, vectors: bool) -> None:
    written = Written(tmp_path, vectors=vectors)
    some_merges(written)
    table = f"delta.`{written.uri}`"
    spark.sql(f"alter table {table} set tblproperties (delta.enableChangeDataFeed = true)")
    start = written.version + 1
    before = by_delta_rs(written.uri, written.version)
    written.apply(10, [6, 50], [7])
    after = same_everywhere(spark, written)
    feed = (
        spark.read.format("delta")
        .option("readChangeFeed", "true")
        .option("startingVersion", start)
        .load(written.uri)
        .select("_change_type", "id")
        .toArrow()
        .to_pylist()
    )
    gone = {row["id"] for row in feed if row["_change_type"] in {"delete", "update_preimage"}}
    come = {row["id"] for row in feed if row["_change_type"] in {"insert", "update_postimage"}}
    assert (gone, come) == ({"k6", "k7"}, {"k6", "k50"})
    assert len(after) == len(before) + 1 - 1
    written.maintain()
    assert same_everywhere(spark, written) == after


def test_our_checkpoints_are_all_that_is_left_of_the_log(spark: Any, tmp_path: Path) -> None:
    written = Written(tmp_path, vectors=True, partition_by=("region",))
    some_merges(written)
    written.maintain()  # with a checkpoint of ours
    written.apply(10, [6, 8, 50], [7])
    newest = written.only_checkpoint()
    rows = same_everywhere(spark, written)
    table = f"delta.`{written.uri}`"
    spark.sql(f"alter table {table} set tblproperties (delta.checkpointInterval = 1)")
    spark.sql(f"delete from {table} where id = 'k9'")  # and a checkpoint of Spark's
    assert written.version > newest
    assert len(same_everywhere(spark, written)) == len(rows) - 1
    written.apply(11, [6, 11, 40], [8])
    before = same_everywhere(spark, written)
    written.only_checkpoint()  # has the files that Spark's checkpoint says are removed
    assert same_everywhere(spark, written) == before
    spark.sql(f"vacuum {table}")
    spark.sql(f"optimize {table}")
    assert same_everywhere(spark, written) == before


def test_vacuum_by_spark_leaves_what_is_in_use(spark: Any, tmp_path: Path) -> None:
    written = Written(tmp_path, vectors=True)
    some_merges(written)
    rows = same_everywhere(spark, written)
    spark.sql(f"vacuum delta.`{written.uri}`")
    assert same_everywhere(spark, written) == rows
    written.apply(9, [1, 2])
    same_everywhere(spark, written)
