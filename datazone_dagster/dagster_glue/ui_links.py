"""Links into Dagster's UI."""

from __future__ import annotations

import os
from urllib.parse import quote

from dagster import EnvVar, SensorEvaluationContext

from datazone_dagster.text import without_secrets

WEBSERVER_VARIABLE = "DAGSTER_WEBSERVER"
"""Environment variable with the address of the UI, for links."""


def ui_address(given: str | EnvVar | None = None) -> str:
    """Return the address of the UI, without a slash at its end; empty if it is not known."""
    value = given.get_value() if isinstance(given, EnvVar) else given
    return without_secrets(value or os.environ.get(WEBSERVER_VARIABLE) or "").rstrip("/")


def sensor_link(context: SensorEvaluationContext, sensor: str) -> str | None:
    """Return the link to a sensor of the code location of a tick; None if that is not known.

    It begins with the address of the UI, if that is known. Without it, it leads to the UI in which
    it is shown, unless that has a path of its own.
    """
    origin, repository = context.code_location_origin, context.repository_name
    if origin is None or repository is None:
        return None
    location = quote(f"{repository}@{origin.location_name}", safe="@")
    return f"{ui_address()}/locations/{location}/sensors/{quote(sensor, safe='')}"
