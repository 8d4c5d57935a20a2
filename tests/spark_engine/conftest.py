from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from datazone_dagster import SparkEngine
from datazone_dagster.spark import spark_server
from tests.spark_engine.server import JARS, Server

QUICK = {"spark.sql.codegen.wholeStage": "false", "spark.sql.adaptive.enabled": "false"}
"""Settings for a few rows: compiling and planning again would take most of the time."""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of this test run, which a test may kill and start again."""
    if not os.environ.get(JARS):
        pytest.skip("Spark is not set up here: run `make test-spark` (Java 17 and Maven)")
    found = Server(tmp_path_factory.mktemp("server"))
    yield found
    found.stop()


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> SparkEngine:
    """The engine with that server, or with the one of DATAZONE_SPARK_REMOTE."""
    spark_server.SETTINGS.update(QUICK)
    remote = os.environ.get("DATAZONE_SPARK_REMOTE")
    return SparkEngine(remote or request.getfixturevalue("server").url)
