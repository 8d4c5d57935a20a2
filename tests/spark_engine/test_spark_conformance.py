"""The MERGE of Spark runs the conformance suite of the merge engines, with one row per key."""

from __future__ import annotations

import uuid
from pathlib import Path

import pyarrow as pa
import pytest

from datazone_dagster import SparkEngine
from datazone_dagster.dataset.modes import ChunkRows
from datazone_dagster.dataset.tombstones import Tombstones
from datazone_dagster.delta import Commit
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import utc_now
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.rows.engine import MergeTarget
from datazone_dagster.rows.merge_batch import CAUSE, MergeBatch
from datazone_dagster.spark.spark_mode import SparkBatch, SparkMode
from datazone_dagster.spark.spark_server import ConnectServer
from datazone_dagster.spark.spark_text import type_of
from datazone_dagster.spark.statements import LEFT
from tests.rows.engine_conformance import SCHEMA, EngineConformance

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]


class BySpark:
    """`MergeEngine` that gives a batch to a session of Spark."""

    def __init__(self, engine: SparkEngine) -> None:
        self._server = ConnectServer(engine)

    def merge(self, target: MergeTarget, batch: MergeBatch, commit: Commit) -> MergeCounts:
        view = f"dz_batch_{uuid.uuid4().hex}"
        rows = batch.keyed_changes.rename_columns({CAUSE: LEFT}).join(
            batch.rows.drop_columns(["_dz_version"]), keys="_dz_key", join_type="left outer"
        )
        session = self._server._session
        if len(rows):
            frame = session.createDataFrame(rows)
        else:  # Spark knows no types of no rows
            nulls = (f"CAST(NULL AS {type_of(one.type)}) AS {one.name}" for one in rows.schema)
            frame = session.sql(f"SELECT {', '.join(nulls)} WHERE false")
        frame.createOrReplaceTempView(view)
        tombstones = Tombstones(Layout(str(Path(target.uri).parent / "lake")), "t", "t")
        mode = SparkMode(self._server, target.uri, "t", tombstones, tombstones.uri)
        (moved,) = commit.app_transactions or []
        mode.take(SparkBatch(view, SCHEMA, ("", ""), 0, moved.version))
        nothing = pa.table({})
        return mode.write(target, ChunkRows(nothing, nothing, utc_now()), commit)

    def replace(
        self, target: MergeTarget, removed: pa.Table, rows: pa.Table, commit: Commit
    ) -> None:
        raise NotImplementedError


class TestSpark(EngineConformance):
    most_rows = 1
    replaces = False
    plans_again = False

    @pytest.fixture(autouse=True)
    def by_spark(self, engine: SparkEngine) -> None:
        type(self).engine = BySpark(engine)


class TestSparkPartitioned(TestSpark):
    partition_by = ("part",)
