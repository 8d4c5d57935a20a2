"""A tick: drains batches until the source is caught up or the time budget is spent."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.api.source import require_stream
from datazone_dagster.delta import guarded
from datazone_dagster.drain.batch import BatchDrain
from datazone_dagster.drain.beside_runs import refuse_beside_runs
from datazone_dagster.drain.drain_call import DrainCall
from datazone_dagster.drain.polling import (
    LISTENING,
    LISTENING_SECONDS,
    POLLING,
    SAME_TICK,
    seconds_to_next,
)
from datazone_dagster.drain.process_state import activities_of
from datazone_dagster.drain.set_batch import SetDrain, StreamDrain
from datazone_dagster.drain.settings import DrainSettings
from datazone_dagster.drain.source_tables import Tables
from datazone_dagster.errors import DatazoneError
from datazone_dagster.model.drain_part import DrainPart, SetPart, StreamPart
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, StreamClient, utc_now
from datazone_dagster.model.report import DrainReport
from datazone_dagster.process.shutdown import shutdown_requested

LONGEST_WAIT_SECONDS = 5.0
"""Longest time between two drains of a client that listens: new shards are listed then."""

_logger = logging.getLogger(__name__)


def drain_tick(
    source: DynamoDBSource,
    client: StreamClient,
    layout: Layout,
    *,
    settings: DrainSettings = DrainSettings(),
    clock: Clock = utc_now,
    logger: logging.Logger = _logger,
    listening: bool = False,
    part: DrainPart | None = None,
    applied: Mapping[str, int] | None = None,
) -> DrainReport:
    """Land batch after batch until the source is caught up or the time budget is spent.

    Each batch is a drain of its own: a committed batch stays, whatever happens to the next one.

    Args:
        source: Source to drain.
        client: Client of its stream.
        layout: Locations of the tables.
        settings: Bounds of the drain.
        clock: Function that returns the time in UTC.
        logger: Logger of warnings.
        listening: Whether another drain of this client came just before: busy shards are asked
            every second, the others as rarely as ever, and the streams are not listed each time.
        part: What this drain does where several drain the source; None: it is the only one.
        applied: Highest batch that a dataset had applied before, by the id of its change log: a log
            that ends before it is an older copy, and its next numbers would be given twice.

    Returns:
        One report over all batches.

    Raises:
        DatazoneError: As in `drain_once`, if the first batch fails. Of a source with
            `drain="tick"`, a batch that drain runs were faster than is reported as lost.
    """
    require_stream(source, "drain_tick")
    deadline_seconds = time.monotonic() + settings.budget_seconds
    call = DrainCall(
        source, client, layout, settings, clock, logger, deadline_seconds, applied or {}
    )
    total: DrainReport | None = None
    tables: Tables | None = None
    while True:
        drain = _batch_drain(call, part)
        try:
            with guarded(layout.uri, f"Draining {source.name}"):
                report = drain.run(
                    tables,
                    intervals=SAME_TICK if total else LISTENING if listening else POLLING,
                    listed_recently=listening and total is None,
                )
                if report.lost_race and part is None and source.drain == "runs":  # by hand
                    refuse_beside_runs(call, drain.landed_before)
        except DatazoneError as error:
            if total is None:
                raise
            logger.warning(
                "Drain of %s stops after %d batches: %s", source.name, total.batches, error
            )
            return total
        tables = drain.tables
        total = report if total is None else total.then(report)
        if isinstance(part, SetPart):
            part = replace(part, is_first=False)
        stuck = report.lost_race or drain.throttled or not drain.progressed
        if (
            report.caught_up
            or stuck
            or isinstance(part, StreamPart)  # drain runs read on
            or shutdown_requested()
            or time.monotonic() >= deadline_seconds
        ):
            return total


def _batch_drain(call: DrainCall, part: DrainPart | None) -> BatchDrain:
    if isinstance(part, SetPart):
        return SetDrain(call, part)
    return BatchDrain(call) if part is None else StreamDrain(call, part)


def next_drain_seconds(client: StreamClient) -> float:
    """Return the time to wait before a client that listens drains again, in seconds.

    It is one second while a shard has records, and at most the five of a tick.
    """
    activities = activities_of(client)
    return max(
        LISTENING_SECONDS, seconds_to_next(activities, time.monotonic(), LONGEST_WAIT_SECONDS)
    )


def drain_once(
    source: DynamoDBSource,
    client: StreamClient,
    layout: Layout,
    *,
    settings: DrainSettings = DrainSettings(),
    clock: Clock = utc_now,
    logger: logging.Logger = _logger,
) -> DrainReport:
    """Land one batch of records from the shards of a source, and report the state of the source.

    Safe at any time and from several processes at once: the drain that commits second loses the
    commit race, and the next drain continues from the committed state.

    Raises:
        ConcurrentWriterError: Drain runs (`drain="runs"`) have landed batches meanwhile.
        DefinitionError: The source has `stream_enabled=False`.
        SourceError: The stream can't be read at all.
        MaskError: The source's mask can't be applied; nothing was landed.
        LineageError: The shards contradict what was landed before.
        StorageError: The lakehouse can't be read or written.
    """
    require_stream(source, "drain_once")
    deadline_seconds = time.monotonic() + settings.budget_seconds
    call = DrainCall(source, client, layout, settings, clock, logger, deadline_seconds)
    with guarded(layout.uri, f"Draining {source.name}"):
        drain = BatchDrain(call)
        report = drain.run()
        if report.lost_race:
            refuse_beside_runs(call, drain.landed_before)
    return report
