"""A change log that several drains write, in Spark, Polars and delta-rs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

from datazone_dagster.model.shard_set import shard_sets
from tests.changelog.test_change_log import log_in
from tests.changelog.test_set_commits import begun, prepared

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]


def test_numbers_that_only_commits_have_are_null_to_others_until_files_are_joined(
    spark: Any, tmp_path: Path
) -> None:
    prepared(tmp_path)
    for _ in range(34):
        for one in shard_sets(2):
            drain = begun(tmp_path, one)
            drain.writer.commit(drain.landed)
    while log_in(tmp_path).maintain_once():
        pass
    uri = str(tmp_path / "_changelog" / "orders")
    table = spark.read.format("delta").load(uri)
    rows = table.count()
    nulls = table.filter("batch is null").count()
    assert 0 < nulls < rows
    assert table.filter("batch > 0").count() == rows - nulls
    assert table.filter("batch is not null").selectExpr("max(batch)").collect()[0][0] == 63
    # From the statistics of the files, which are not read: the commits have put the numbers there.
    assert table.selectExpr("max(batch)").collect()[0][0] == 68
    assert DeltaTable(uri).to_pyarrow_table()["batch"].null_count == nulls
    assert pl.scan_delta(uri).filter(pl.col("batch") > 0).collect().height == rows - nulls
