"""One call that takes a snapshot as far as it goes now."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import replace

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.delta.store_errors import converts_errors
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, utc_now
from datazone_dagster.model.snapshot_report import SnapshotReport
from datazone_dagster.model.table_scan import TableClient
from datazone_dagster.process.shutdown import shutdown_requested
from datazone_dagster.snapshot.export_table import ExportedTable
from datazone_dagster.snapshot.scan import Until
from datazone_dagster.snapshot.snapshot_run import SnapshotRun
from datazone_dagster.snapshot.snapshot_settings import SnapshotSettings

_logger = logging.getLogger(__name__)

_WAIT_SECONDS = 5.0
"""Time between two looks at what the snapshot waits for, in seconds."""


@converts_errors("Taking a snapshot")
def snapshot_source(
    source: DynamoDBSource,
    layout: Layout,
    client: TableClient,
    *,
    dataset_ids: Collection[str] = (),
    settings: SnapshotSettings = SnapshotSettings(),
    deadline_seconds: float | None = None,
    patience_seconds: float = 0.0,
    stop: Callable[[], bool] = shutdown_requested,
    on_progress: Callable[[SnapshotReport], None] | None = None,
    clock: Clock = utc_now,
    monotonic: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
    logger: logging.Logger = _logger,
    exports: ExportedTable | None = None,
) -> SnapshotReport:
    """Take the snapshot of a source as far as it goes now.

    The call ends when the snapshot is done, when it has to wait longer than `patience_seconds`, or
    when `stop` says so. It waits for the drain, and for datasets to apply what was landed:
    `SnapshotReport.waits_for` names what. The next call continues there, in any process. A killed
    process has lost nothing either: what it landed is landed once, and at most one page per segment
    is read again.

    Args:
        source: Source with `start="snapshot"`, or for which a snapshot was asked.
        layout: Locations of the tables.
        client: Client of the table's items.
        dataset_ids: Ids of all declared datasets of the source. Those without a table count, too:
            the handover waits until they have applied the scan. Datasets of the source that are
            in the lakehouse count whether they are named or not.
        settings: Bounds of the run.
        deadline_seconds: Time after which no further page is started, in seconds from now.
        patience_seconds: Time for which the same wait is waited out, in seconds; 0 returns at once.
        stop: Returns whether to stop; asked before each page.
        on_progress: Called with the state before each step and after each commit of the scan.
        clock: Source of the current time.
        monotonic: Clock that never goes back, in seconds.
        pause: Waits a number of seconds.
        logger: Logger.
        exports: Finished exports to read instead of a scan; `want_exports` has to come first.

    Returns:
        Phase, counts, rate, and what the snapshot waits for.

    Raises:
        SnapshotError: The source has no snapshot, or the sweep stops and asks.
        MaskError: The source's mask can't be applied, or its salt is another one.
        SourceError: The table or an export can't be read; what was read before is landed.
        StorageError: There is no change log yet, or the lakehouse can't be read or written.
    """
    limit = float("inf") if deadline_seconds is None else monotonic() + deadline_seconds
    until = Until(limit, stop, monotonic, pause)

    def run_once() -> SnapshotReport:
        return SnapshotRun(
            source,
            layout,
            client,
            dataset_ids=dataset_ids,
            settings=settings,
            until=until,
            clock=clock,
            on_progress=on_progress,
            logger=logger,
            exports=exports,
        ).run()

    report = run_once()
    began_again, since = report.began_again, monotonic()
    while report.waits_for and not until.reached() and monotonic() - since < patience_seconds:
        pause(_WAIT_SECONDS)
        waited_for, report = report.waits_for, run_once()
        began_again = report.began_again or began_again
        if report.waits_for != waited_for:
            since = monotonic()
    return replace(report, began_again=began_again)
