"""Result of the drain of a tick: what it reports, or its error and what is known all the same."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.errors import DatazoneError, SourceError
from datazone_dagster.model.drain_part import DrainPart, StreamPart
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import DrainReport
from datazone_dagster.model.set_state import KnownSets
from datazone_dagster.observe.health import (
    StreamHealth,
    health_of_error,
    health_of_report,
    with_sets,
)
from datazone_dagster.pipeline import known_sets


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The drain of this tick succeeded."""

    report: DrainReport
    error: None = None

    @property
    def known(self) -> KnownSets:
        """Sets of shards that drain runs read."""
        return KnownSets(self.report.sets, self.report.head_batch)


@dataclass(frozen=True, slots=True)
class Failed:
    """The drain of this tick failed."""

    error: DatazoneError
    known: KnownSets
    report: None = None


def failed_with(
    error: DatazoneError,
    part: DrainPart | None,
    source: DynamoDBSource,
    layout: Layout,
    now: datetime,
    logger: logging.Logger,
) -> Failed:
    """Return the result of a drain that failed.

    The service may refuse listings and answer reads: the sets of shards are known from the tables
    then, so that a drain run that dies meanwhile is replaced.
    """
    known = KnownSets()
    if isinstance(part, StreamPart) and isinstance(error, SourceError):
        try:
            known = known_sets(source, layout, part, now)
        except DatazoneError as other:
            logger.warning("The sets of shards are not known: %s", other)
    return Failed(error, known)


def health_of(
    drained: Succeeded | Failed,
    source: DynamoDBSource,
    now: datetime,
    caught_up_at: datetime,
    *,
    never_read: bool,
) -> StreamHealth:
    """Return the health of the stream after the drain of a tick."""
    if drained.report is not None:
        return health_of_report(drained.report, now=now, caught_up_at=caught_up_at)
    health = health_of_error(
        drained.error, now=now, caught_up_at=caught_up_at, never_read=never_read
    )
    return with_sets(health, source.name, drained.known.sets, now)
