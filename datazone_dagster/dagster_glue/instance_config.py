"""The `dagster.yaml` that we ship: settings of a Dagster instance that fit this library."""

from __future__ import annotations

from importlib.resources import files


def dagster_yaml() -> str:
    """The text of a `dagster.yaml` for `$DAGSTER_HOME`; merge it into your own.

    Sensors run in threads, so that a slow stream does not hold up the others; the queue is
    looked at every second; a pool lets one run at a time in; ticks are forgotten in time.
    """
    return files("datazone_dagster.dagster_glue").joinpath("dagster.yaml").read_text("utf-8")
