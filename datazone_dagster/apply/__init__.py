"""A run of a transform: chunk by chunk from the change log into its datasets."""

from datazone_dagster.apply.chunk_size import ApplySettings
from datazone_dagster.apply.redrive import Redriving
from datazone_dagster.apply.run import ApplyRun

__all__ = ["ApplyRun", "ApplySettings", "Redriving"]
