"""The left half of the flow: what the shards hold lands in the change log."""

from datazone_dagster.landing.settings import DrainSettings
from datazone_dagster.landing.tick import drain_once, drain_tick

__all__ = ["DrainSettings", "drain_once", "drain_tick"]
