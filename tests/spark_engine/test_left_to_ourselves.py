"""What Spark would not apply as the library's own engine does: left to that one, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from datazone_dagster import Dataset, SparkEngine
from datazone_dagster.apply.chunk import CHANGES_SCHEMA
from datazone_dagster.apply.spark_run import require_safe_commits
from datazone_dagster.errors import ConcurrentWriterError, SparkError, StorageError
from datazone_dagster.model.layout import Layout
from datazone_dagster.process import crash_points
from datazone_dagster.spark.cached_view import cached
from datazone_dagster.spark.spark_mode import SparkBatch, SparkDatasetTable
from datazone_dagster.spark.spark_server import APP_ID, APP_VERSION, USER_METADATA, SparkServer
from datazone_dagster.testing import at_point
from tests.spark_engine.server import Item, applied, flow, land

NOW = datetime(2026, 9, 22, tzinfo=timezone.utc)
NOBODY = SparkEngine(remote="sc://127.0.0.1:1")
OPEN: Item = {"total": {"N": "5"}}
BAD: Item = {"total": {"N": "no number"}}


def total(changes: Any) -> Any:
    return changes.select(
        "dynamodb.Keys.id.S as id", "cast(dynamodb.NewImage.total.N as int) as total"
    )


def test_a_change_does_not_overtake_a_quarantined_one_of_its_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours = flow(None, total, mode="append", on_error="quarantine")
    land(tmp_path, [(1, "a", BAD), (2, "b", OPEN)])
    assert len(applied(tmp_path, ours)[1]) == 1
    land(tmp_path, [(3, "a", OPEN), (4, "b", OPEN)])
    by_spark = flow(NOBODY, total, mode="append", on_error="quarantine")
    assert len(applied(tmp_path, by_spark)[1]) == 2  # only those of b
    assert "wait in the quarantine" in caplog.text


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("cast(dynamodb.NewImage.total.N as double)", "a double"),
        ("dynamodb.ApproximateCreationDateTime", "a timestamp[us, tz=UTC]"),
    ],
)
def test_a_partition_of_a_type_that_spark_spells_otherwise(
    tmp_path: Path, value: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def parted(changes: Any) -> Any:
        return changes.select(f"{value} as part")

    land(tmp_path, [(1, "a", OPEN)])
    assert len(applied(tmp_path, flow(NOBODY, parted, partition_by="part"))[1]) == 1
    assert f"partitioned by 'part', {kind}" in caplog.text


def test_a_table_with_a_name_of_an_older_version(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def spaced(changes: Any) -> Any:
        return changes.filter("dynamodb.Keys.id.S <> 'a'").select(
            'cast(dynamodb.NewImage.total.N as int) as "unit price"'
        )

    land(tmp_path, [(1, "a", OPEN)])
    schema, _ = applied(tmp_path, flow(None, spaced))
    (made,) = [name for name in schema.names if name.startswith("unit")]
    for entry in (tmp_path / "d" / "_delta_log").glob("*.json"):  # no row is there yet
        entry.write_text(entry.read_text().replace(made, "unit price"))
    land(tmp_path, [(2, "b", OPEN)])
    schema, (row,) = applied(tmp_path, flow(NOBODY, spaced))
    assert "unit price" in schema.names
    assert "'unit price': 5" in row
    assert "older version" in caplog.text


class StopsAtTheMerge:
    """A server on which nothing of a dataset may be written."""

    def run(self, statement: str, settings: Mapping[str, str] | None = None) -> pa.Table:
        assert not statement.startswith("MERGE"), "the table has changed"
        return pa.table({})


@pytest.mark.parametrize("mark", ["erase/orders", "redrive/orders", "rebuild/orders"])
def test_an_erasure_a_redrive_or_a_rebuild_before_the_merge_stops_it(
    tmp_path: Path, mark: str
) -> None:
    """It commits while columns are added and tombstones are written."""
    land(tmp_path, [(1, "a", OPEN)])
    applied(tmp_path, flow(None, total))
    table = spark_table(tmp_path, StopsAtTheMerge())
    row = DeltaTable(table.uri).to_pyarrow_table().slice(0, 0)
    table.spark.take(SparkBatch("view", row.schema, ("", ""), 0, 2))

    def meanwhile() -> None:
        other = DeltaTable(str(tmp_path / "d"))
        empty = other.to_pyarrow_table().slice(0, 0)
        properties = CommitProperties(app_transactions=[Transaction(mark, 1)])
        write_deltalake(other, empty, mode="append", commit_properties=properties)

    with (
        at_point(crash_points.BEFORE_DATASET_COMMIT, meanwhile),
        pytest.raises(ConcurrentWriterError, match="erased from, redriven, rebuilt"),
    ):
        table.apply(CHANGES_SCHEMA.empty_table(), row, after_batch=1, through_batch=2, now=NOW)


def test_a_restore_before_the_merge_stops_it(tmp_path: Path) -> None:
    """Its rows are older than the transaction says: the changes between would be missing."""
    for number in (1, 2):
        land(tmp_path, [(number, "a", OPEN)])
        applied(tmp_path, flow(None, total))
    table = spark_table(tmp_path, StopsAtTheMerge())
    first = DeltaTable(table.uri).version() - 1
    row = DeltaTable(table.uri).to_pyarrow_table().slice(0, 0)
    table.spark.take(SparkBatch("view", row.schema, ("", ""), 0, 3))
    with (
        at_point(crash_points.BEFORE_DATASET_COMMIT, lambda: DeltaTable(table.uri).restore(first)),
        pytest.raises(ConcurrentWriterError, match="or restored meanwhile"),
    ):
        table.apply(CHANGES_SCHEMA.empty_table(), row, after_batch=2, through_batch=3, now=NOW)


class RestoredMeanwhile:
    """A server on which the table is restored between the look at it and the commit of the MERGE.

    Args:
        uri: The dataset.
        reads_before: Whether the MERGE has read the table before; then nothing conflicts with one
            that only inserts.
    """

    def __init__(self, uri: str, *, reads_before: bool) -> None:
        self._uri = uri
        self._reads_before = reads_before
        self._token = ""
        self._version = -1

    def run(self, statement: str, settings: Mapping[str, str] | None = None) -> pa.Table:
        table = DeltaTable(self._uri)
        if statement.startswith("MERGE"):
            assert settings is not None
            self._token, self._version = settings[USER_METADATA], table.version() + 2
            table.restore(table.version() - 1)
            table = DeltaTable(self._uri)
            moved = [Transaction(settings[APP_ID], int(settings[APP_VERSION]))]
            properties = CommitProperties(app_transactions=moved)
            empty = table.to_pyarrow_table().slice(0, 0)
            write_deltalake(table, empty, mode="append", commit_properties=properties)
        if statement.startswith("DESCRIBE HISTORY"):
            ours, restored = self._version, self._version - 1
            return pa.Table.from_pylist(
                [
                    {
                        "version": ours,
                        "readVersion": restored - self._reads_before,
                        "operation": "MERGE",
                        "userMetadata": self._token,
                    },
                    {"version": restored, "readVersion": restored - 1, "operation": "RESTORE"},
                ]
            )
        return pa.table({})


@pytest.mark.parametrize("reads_before", [True, False])
def test_a_restore_in_the_moment_before_the_commit_is_told(
    tmp_path: Path, reads_before: bool
) -> None:
    for number in (1, 2):
        land(tmp_path, [(number, "a", OPEN)])
        applied(tmp_path, flow(None, total))
    uri = str(tmp_path / "d")
    table = spark_table(tmp_path, RestoredMeanwhile(uri, reads_before=reads_before))
    row = DeltaTable(uri).to_pyarrow_table().slice(0, 0)
    table.spark.take(SparkBatch("view", row.schema, ("", ""), 0, 3))
    with pytest.raises(
        StorageError, match=r"restored to an older version .*datazone-dagster rebuild"
    ):
        table.apply(CHANGES_SCHEMA.empty_table(), row, after_batch=2, through_batch=3, now=NOW)


def spark_table(root: Path, server: SparkServer) -> SparkDatasetTable:
    return SparkDatasetTable(Layout(str(root)), Dataset("d"), "orders", server, lambda uri: uri)


def test_a_server_that_is_gone_is_not_asked_to_clean_up() -> None:
    asked = []

    class Gone:
        def run(self, statement: str, settings: Mapping[str, str] | None = None) -> pa.Table:
            asked.append(statement)
            raise SparkError("gone")

    with pytest.raises(SparkError, match="gone"), cached(Gone(), "SELECT 1"):
        pass
    assert len(asked) == 1


def test_a_view_that_stays_is_only_told(caplog: pytest.LogCaptureFixture) -> None:
    class DropsNothing:
        def run(self, statement: str, settings: Mapping[str, str] | None = None) -> pa.Table:
            if statement.startswith("DROP"):
                raise SparkError("no")
            return pa.table({})

    with cached(DropsNothing(), "SELECT 1"):
        pass
    assert "until its session ends" in caplog.text


def test_a_lakehouse_on_s3_is_refused() -> None:
    """Before anything is read: where it is says enough."""
    layout = Layout("s3://bucket/lake")
    with pytest.raises(SparkError, match="on S3"):
        require_safe_commits(layout)
