"""Copy of a table into a change log of its own, for datasets without a stream.

The copy is in a lakehouse that nobody else reads, so there is no drain to wait for and nothing to
hand over: the scan of a snapshot, without the rest of it.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.scan_log import ScanLog
from datazone_dagster.errors import SnapshotError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.scan_facts import ScanFacts
from datazone_dagster.model.snapshot_state import (
    Phase,
    SnapshotState,
    announced,
    scan_started,
    wanted,
)
from datazone_dagster.model.table_scan import TableClient
from datazone_dagster.process.shutdown import shutdown_requested
from datazone_dagster.snapshot.rate import TokenBucket, units_per_second
from datazone_dagster.snapshot.scan import Scan, Until, segments_for
from datazone_dagster.snapshot.scanned_records import ScannedRecords, hides_keys
from datazone_dagster.snapshot.snapshot_settings import SnapshotSettings

LOG_EVERY = timedelta(seconds=10)
"""Interval at which a scan logs its progress."""


def copy_table(
    source: DynamoDBSource,
    client: TableClient,
    settings: SnapshotSettings,
    clock: Clock,
    logger: logging.Logger,
    layout: Layout,
    epoch: int,
    until: Until | None = None,
) -> ScanFacts:
    """Scan a whole table with consistent reads; land its items in a new change log.

    Args:
        source: The source.
        client: Client of the table.
        settings: Bounds of the scan.
        clock: Source of the current time.
        logger: Logger of the progress.
        layout: Lakehouse of the copy: empty, and of this call alone.
        epoch: Epoch of the rows.
        until: When the scan stops; defaults to a request to shut down.

    Raises:
        SnapshotError: The scan was stopped.
        SourceError: The table can't be read.
        StorageError: The store failed.
    """
    until = until or Until(stop=shutdown_requested)
    description = client.describe_table()
    hide_keys = hides_keys(source, description.key_names)
    change_log = ChangeLog(layout, source)
    change_log.open_or_create()
    scan_log = ScanLog(change_log)
    started_at = clock()
    segments = segments_for(description.size_bytes, settings.workers, hide_keys=hide_keys)
    state = announced(
        wanted("start"),
        epoch=epoch,
        at=started_at,
        consistent_reads=True,
        table_id=description.table_id or "",
    )
    scan_log.move(scan_log.state, scan_started(state, segments=segments, at=started_at))
    begun = scan_log.state
    assert begun is not None  # it was stored just now
    limit = units_per_second(description, source.snapshot_rcu)
    scan = Scan(
        client=client,
        scan_log=scan_log,
        records=ScannedRecords(source, epoch, description.table_arn),
        bucket=TokenBucket(limit, until.monotonic()),
        workers=settings.workers,
        hide_keys=hide_keys,
        on_commit=_Progress(source.table_name, description.item_count, logger).report,
        logger=logger,
    )
    reached = scan.run(begun, until)
    if reached.phase is not Phase.SCANNED or reached.scanned_at is None:
        raise _stopped(source, reached)
    return ScanFacts(
        table_name=source.table_name,
        table_arn=description.table_arn or "",
        # Clocks differ: the earlier of the two promises less.
        started_at=min(started_at, reached.scanned_at),
        ended_at=reached.scanned_at,
        items=reached.rows,
        bytes=reached.bytes,
        read_units=reached.read_units,
    )


class _Progress:
    """Logs the progress of a scan, now and then."""

    def __init__(self, table_name: str, item_count: int, logger: logging.Logger) -> None:
        self._table_name = table_name
        self._item_count = item_count
        self._logger = logger
        self._next = datetime.now(timezone.utc) + LOG_EVERY

    def report(self, state: SnapshotState) -> None:
        now = datetime.now(timezone.utc)
        if now >= self._next:
            self._next = now + LOG_EVERY
            self._logger.info(
                "Scanning table %s: %d items of about %d, %.0f read units, segment %d of %d.",
                self._table_name,
                state.rows,
                self._item_count,
                state.read_units,
                state.segments_done,
                state.segments,
            )


def _stopped(source: DynamoDBSource, state: SnapshotState) -> SnapshotError:
    return SnapshotError(
        f"The scan of table {source.table_name!r} was stopped after {state.rows:,} items, because "
        "the process was asked to end.",
        safe="The datasets are as they were.",
        hint="The next run scans the table from the start.",
    )
