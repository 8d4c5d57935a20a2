"""One run of a transform: chunk by chunk from the change log into its datasets."""

from datazone_dagster.application.redrive import Redriving
from datazone_dagster.application.run import Application
from datazone_dagster.application.sizes import ApplySettings

__all__ = ["Application", "ApplySettings", "Redriving"]
