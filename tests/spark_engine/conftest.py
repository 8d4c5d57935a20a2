from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from datazone_dagster import SparkEngine
from datazone_dagster.spark import spark_server
from tests.spark_engine.server import JARS, connect_server

QUICK = {"spark.sql.codegen.wholeStage": "false", "spark.sql.adaptive.enabled": "false"}
"""Settings for a few rows: compiling and planning again would take most of the time."""


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkEngine]:
    """A server of this test run, or the one of DATAZONE_SPARK_REMOTE."""
    spark_server.SETTINGS.update(QUICK)
    remote = os.environ.get("DATAZONE_SPARK_REMOTE")
    if remote:
        yield SparkEngine(remote)
        return
    if not os.environ.get(JARS):
        pytest.skip("Spark is not set up here: run `make test-spark` (Java 17 and Maven)")
    with connect_server(tmp_path_factory.mktemp("server")) as url:
        yield SparkEngine(url)
