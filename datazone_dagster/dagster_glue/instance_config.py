"""The `dagster.yaml` of this package: settings of a Dagster instance that suit the library."""

from __future__ import annotations

from importlib.resources import files


def dagster_yaml() -> str:
    """Return the text of a `dagster.yaml` for `$DAGSTER_HOME`, to use or merge into your own.

    Its settings: sensors run in threads, so that a slow stream does not delay the others. The
    run queue is checked every second. Pools hold whole runs; the drain sensor limits those of the
    transforms to one run, and no others. Runs that do not start are ended. Old sensor ticks are
    deleted.
    """
    return files("datazone_dagster.dagster_glue").joinpath("dagster.yaml").read_text("utf-8")
