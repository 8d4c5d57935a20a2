"""The kind of run of a transform: by the library's own engine, or by Spark."""

from __future__ import annotations

from datazone_dagster.api import Transform
from datazone_dagster.apply.run import ApplyRun


def run_of(transform: Transform) -> type[ApplyRun]:
    """Return the class of a transform's runs; Spark's is loaded for its transforms only."""
    if transform.engine is None:
        return ApplyRun
    from datazone_dagster.apply.spark_run import SparkRun

    return SparkRun
