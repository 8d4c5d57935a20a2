"""One run of a transform: chunk by chunk from the change log into its datasets."""

from datazone_dagster.application.run import Application, ApplySettings

__all__ = ["Application", "ApplySettings"]
