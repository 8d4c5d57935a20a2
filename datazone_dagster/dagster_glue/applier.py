"""How runs apply one transform: what one call of `build_definitions` has said of it."""

from __future__ import annotations

from dataclasses import dataclass

from datazone_dagster.api import Transform
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.model.protocols import Clock
from datazone_dagster.pipeline import ApplySettings, SnapshotSettings


@dataclass(frozen=True)
class Applier:
    """A transform, and the settings of the call of `build_definitions` that it is from.

    Args:
        transform: Transform to apply.
        keys: Keys of its assets.
        settings: Bounds of a run.
        snapshot_settings: Bounds of a scan, for a source without a stream.
        preview: Whether metadata may show rows.
        clock: Function that returns the time in UTC.
        shares_runs: Whether the runs that the sensor requests are those of all such transforms.
    """

    transform: Transform
    keys: AssetKeys
    settings: ApplySettings
    snapshot_settings: SnapshotSettings
    preview: bool
    clock: Clock
    shares_runs: bool
