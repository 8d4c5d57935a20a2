"""What a call that drains gives to each of its batches, whatever part of the source they read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.drain.settings import DrainSettings
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, StreamClient


@dataclass(frozen=True, slots=True)
class DrainCall:
    """One call of `drain_once` or `drain_tick`.

    Args:
        source: Source to drain.
        client: Client of its stream.
        layout: Locations of the tables.
        settings: Bounds of the drain.
        clock: Function that returns the time in UTC.
        logger: Logger of warnings.
        deadline_seconds: Time at which the last batch has to end, on the monotonic clock.
        applied: Highest batch that a dataset has applied, by the id of its change log.
    """

    source: DynamoDBSource
    client: StreamClient
    layout: Layout
    settings: DrainSettings
    clock: Clock
    logger: logging.Logger
    deadline_seconds: float
    applied: Mapping[str, int] = field(default_factory=dict)
