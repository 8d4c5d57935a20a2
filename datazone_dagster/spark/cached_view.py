"""Rows of a query that a session of Spark computes once and keeps for some statements."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from datazone_dagster.errors import ConcurrentWriterError, SparkError
from datazone_dagster.spark.spark_server import FailingValuesError, SparkServer

_LOGGER = logging.getLogger(__name__)


@contextmanager
def cached(server: SparkServer, query: str) -> Iterator[str]:
    """Have the rows of a query computed once and kept by the server; yield their name."""
    view, is_lost = f"dz_batch_{uuid.uuid4().hex}", False
    try:
        server.run(f"CACHE TABLE {view} AS {query}")
        yield view
    except SparkError:  # the session is given up, and its views end with it
        is_lost = True
        raise
    finally:
        if not is_lost:
            _drop(server, view)


def _drop(server: SparkServer, view: str) -> None:
    """Drop a view. A failure is told only: the chunk is written, or another error says why not."""
    try:
        server.run(f"DROP VIEW IF EXISTS {view}")
    except (SparkError, ConcurrentWriterError, FailingValuesError) as error:
        _LOGGER.warning(
            "The Spark server keeps the view %s until its session ends: %s", view, error
        )
