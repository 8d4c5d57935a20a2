"""Stage one: read the shards of a stream in lineage order; land every record in the change log."""

from datazone_dagster.drain.process_state import take_over_state
from datazone_dagster.drain.settings import DrainSettings
from datazone_dagster.drain.tick import drain_once, drain_tick, next_drain_seconds

__all__ = ["DrainSettings", "drain_once", "drain_tick", "next_drain_seconds", "take_over_state"]
