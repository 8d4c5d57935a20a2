"""The public facade: every operation on a stream and its tables, without Dagster.

`drain_once` lands the records of the shards in the change log. `apply_transform` takes them from
there to the datasets of a transform. The two share nothing but the change log: landing never
waits for a merge, and a failing transform loses nothing.

The Dagster integration, the commands and the demo reach the stages and the tables through this
module only; an import rule enforces it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from functools import partial

from datazone_dagster.api import Dataset, Transform
from datazone_dagster.api.function_version import function_version
from datazone_dagster.apply import ApplyRun, ApplySettings, Redriving
from datazone_dagster.apply.backlog import (
    applied_of_logs,
    backlog,
    bucket_positions,
    buckets_behind,
    look_in_turn,
    stop_waiting_for,
    waits_for_rebuild,
)
from datazone_dagster.apply.chunk_size import ChunkSizes
from datazone_dagster.apply.expectations import check_expectations
from datazone_dagster.apply.flow_counts import flow_counts
from datazone_dagster.apply.maintain_dataset import maintain_dataset as _maintain_dataset
from datazone_dagster.apply.rebuild import Rebuild, RebuildReport
from datazone_dagster.apply.replace_datasets import Replacement
from datazone_dagster.apply.truncate_log import truncate_applied
from datazone_dagster.audit import audit_source, plan_audit
from datazone_dagster.changelog.gap_acceptance import accept_gaps, gap_notes
from datazone_dagster.changelog.source_status import source_status
from datazone_dagster.dataset.function_versions import FunctionFacts, accept_version, function_facts
from datazone_dagster.dataset.key_report import key_report as _key_report
from datazone_dagster.dataset.read_dataset import DatasetReader
from datazone_dagster.dataset.scanned_dataset import last_scan
from datazone_dagster.dataset.source_datasets import datasets_of_source
from datazone_dagster.delta.store_access import resolve_access_with
from datazone_dagster.delta.store_errors import converts_errors
from datazone_dagster.delta.unfinished_uploads import abort_uploads_with
from datazone_dagster.drain import (
    DrainSettings,
    drain_once,
    drain_tick,
    next_drain_seconds,
    take_over_state,
)
from datazone_dagster.drain.known_sets import known_sets
from datazone_dagster.drain.polling import LISTENING, POLLING
from datazone_dagster.erase import Erasure, open_erasure
from datazone_dagster.model.audit_report import AuditSettings
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, utc_now
from datazone_dagster.model.report import (
    ApplyReport,
    ChunkReport,
    FlowCounts,
    KeyReport,
    MaintenanceReport,
    RedriveReport,
)
from datazone_dagster.model.table_scan import TableClient
from datazone_dagster.pipeline.applying import apply_transform, follow_changes
from datazone_dagster.pipeline.change_tail import ChangeTail
from datazone_dagster.pipeline.probing import probe_lakehouse, probe_source
from datazone_dagster.pipeline.reading import (
    change_log_exists,
    change_log_head,
    dataset_exists,
    open_dataset,
    open_gaps,
    read_dataset,
    records_waiting,
    was_drained_by_runs,
)
from datazone_dagster.rows.maintenance_plan import THOROUGH, MaintenanceSettings
from datazone_dagster.snapshot import (
    SnapshotSettings,
    cancel_snapshot,
    copy_table,
    lost_window_start,
    open_exports,
    plan_snapshot,
    resync_after_gap,
    snapshot_source,
    snapshot_status,
    start_exports,
    want_exports,
    want_snapshot,
)
from datazone_dagster.source.connect import (
    connect,
    connect_exports,
    connect_store,
    connect_table,
    connect_uploads,
)
from datazone_dagster.source.connection_settings import (
    AccountIdEndpointMode,
    ConnectionSettings,
    RetryMode,
)

__all__ = [
    "LISTENING",
    "POLLING",
    "AccountIdEndpointMode",
    "ApplySettings",
    "AuditSettings",
    "ChangeTail",
    "ConnectionSettings",
    "DatasetReader",
    "DrainSettings",
    "Erasure",
    "FlowCounts",
    "FunctionFacts",
    "MaintenanceSettings",
    "RebuildReport",
    "RetryMode",
    "SnapshotSettings",
    "accept_function",
    "accept_gaps",
    "applied_of_logs",
    "apply_transform",
    "audit_source",
    "backlog",
    "bucket_positions",
    "buckets_behind",
    "cancel_snapshot",
    "change_log_exists",
    "change_log_head",
    "check_expectations",
    "connect",
    "connect_exports",
    "connect_table",
    "dataset_exists",
    "dataset_report",
    "datasets_of_source",
    "drain_once",
    "drain_tick",
    "flow_counts",
    "follow_changes",
    "function_facts",
    "gap_notes",
    "key_report",
    "known_sets",
    "last_scan",
    "look_in_turn",
    "lost_window_start",
    "maintain_dataset",
    "next_drain_seconds",
    "open_dataset",
    "open_erasure",
    "open_exports",
    "open_gaps",
    "plan_audit",
    "plan_snapshot",
    "probe_lakehouse",
    "probe_source",
    "quarantine_report",
    "read_dataset",
    "rebuild_dataset",
    "records_waiting",
    "redrive_dataset",
    "replace_from_table",
    "resync_after_gap",
    "snapshot_source",
    "snapshot_status",
    "source_status",
    "start_exports",
    "stop_waiting_for",
    "take_over_state",
    "truncate_applied",
    "utc_now",
    "waits_for_rebuild",
    "want_exports",
    "want_snapshot",
    "was_drained_by_runs",
]

_logger = logging.getLogger(__name__)

# Tables know stores, not AWS: the facade brings them together.
resolve_access_with(connect_store)
abort_uploads_with(connect_uploads)


@converts_errors("Looking at a dataset")
def dataset_report(transform: Transform, dataset_id: str, layout: Layout) -> ApplyReport:
    """Return the report of a dataset as it is: position, rows, columns, files. Applies nothing.

    Raises:
        StorageError: The lakehouse can't be read.
    """
    settings = ApplySettings()
    run = ApplyRun(transform, layout, settings, utc_now, None, _logger, only=[dataset_id])
    return run.look()[dataset_id]


@converts_errors("Accepting a function")
def accept_function(transform: Transform, dataset_id: str, layout: Layout) -> FunctionFacts:
    """Count all rows of a dataset as made by the present function. No row changes.

    Returns:
        What was known of the dataset's function before.

    Raises:
        ConcurrentWriterError: Another commit came first; nothing was accepted.
        StorageError: The lakehouse can't be read or written.
    """
    version = function_version(transform)
    return accept_version(layout, dataset_id, transform.source.name, version)


@converts_errors("Redriving records")
def redrive_dataset(
    transform: Transform,
    dataset_id: str,
    layout: Layout,
    *,
    settings: ApplySettings = ApplySettings(),
    clock: Clock = utc_now,
    logger: logging.Logger = _logger,
) -> RedriveReport:
    """Redrive the quarantined records of a dataset, in the order in which they arrived.

    Safe at any time, also during a run: a record enters the dataset once, and a row of its key
    with a newer version stays. Records that the dataset still can't take stay in the quarantine.

    Raises:
        TransformError: The function failed under `on_error="fail"`. Records that were redriven
            before stay in the dataset; the others stay in the quarantine.
        StorageError: The lakehouse can't be read or written.
    """
    dataset = next(one for one in transform.outputs.values() if one.id == dataset_id)
    return Redriving(transform, dataset, layout, settings, clock, logger).run()


@converts_errors("Looking at a quarantine")
def quarantine_report(transform: Transform, dataset_id: str, layout: Layout) -> RedriveReport:
    """Return the records in the quarantine of a dataset, counted by reason.

    Raises:
        StorageError: The lakehouse can't be read.
    """
    dataset = next(one for one in transform.outputs.values() if one.id == dataset_id)
    return Redriving(transform, dataset, layout, ApplySettings(), utc_now, _logger).look()


@converts_errors("Maintaining a dataset")
def maintain_dataset(
    dataset: Dataset,
    layout: Layout,
    *,
    settings: MaintenanceSettings = THOROUGH,
    memory_budget: int | None = None,
    clock: Clock = utc_now,
) -> MaintenanceReport | None:
    """Do the maintenance of a dataset's table that is due; return None if there is no table.

    No row changes. Replaced files of the dataset's quarantine are deleted as well, after the same
    retention, and so are the parts of files in S3 whose upload began a day ago. A merge that
    commits meanwhile wins, and the report says so.

    Args:
        dataset: Dataset to maintain.
        layout: Locations of the tables.
        settings: Work that is due, and its limits; the default leaves nothing undone.
        memory_budget: Memory limit of the process, in bytes; None is the default of a run.
        clock: Clock for the retention.

    Raises:
        StorageError: The table can't be read or written; its rows are as they were.
    """
    sizes = ChunkSizes(ApplySettings(memory_budget=memory_budget))
    return _maintain_dataset(layout, dataset, settings, clock, memory_bytes=sizes.available_bytes())


@converts_errors("Checking the keys of a dataset")
def key_report(dataset: Dataset, layout: Layout) -> KeyReport | None:
    """Return the keys of a dataset and those with rows of several changes; reads two columns.

    None if the dataset has no table, or stores events, which have no unique key.

    Raises:
        StorageError: The table can't be read.
        OutOfMemoryError: The keys need more memory and disk than there is.
    """
    if dataset.mode == "append":
        return None
    return _key_report(layout, dataset.id, ChunkSizes(ApplySettings()).frame_memory_bytes)


@converts_errors("Rebuilding a dataset")
def rebuild_dataset(
    transform: Transform,
    dataset_id: str,
    layout: Layout,
    *,
    settings: ApplySettings = ApplySettings(),
    clock: Clock = utc_now,
    on_chunk: Callable[[ChunkReport], None] | None = None,
) -> RebuildReport:
    """Rebuild a dataset from the change log with the current function, and swap it in.

    Readers see the old rows until one commit swaps the new ones in. An interrupted rebuild leaves
    the dataset as it was.

    Raises:
        TransformError: The function failed, or its result can't be applied.
        StorageError: The lakehouse can't be read or written, or the change log is truncated.
    """
    dataset = next(one for one in transform.outputs.values() if one.id == dataset_id)
    return Rebuild(
        transform, dataset, layout, settings=settings, clock=clock, on_chunk=on_chunk
    ).run()


@converts_errors("Replacing datasets by a scan")
def replace_from_table(
    transform: Transform,
    client: TableClient,
    layout: Layout,
    *,
    settings: ApplySettings = ApplySettings(),
    snapshot_settings: SnapshotSettings = SnapshotSettings(),
    clock: Clock = utc_now,
    on_chunk: Callable[[ChunkReport], None] | None = None,
    logger: logging.Logger = _logger,
    only: Collection[str] | None = None,
) -> dict[str, ApplyReport]:
    """Scan the table of a source without a stream, and replace the datasets of a transform.

    Each dataset is replaced in one commit. A run that fails or is killed leaves it as it was. With
    `only`, the datasets of other ids are left alone.

    Returns:
        One report per dataset, by dataset id.

    Raises:
        SnapshotError: The process was asked to end during the scan.
        SourceError: The table can't be read.
        TransformError: The function failed, or its result can't be applied.
        StorageError: The lakehouse can't be read or written, or a dataset is made from a stream.
    """
    replacement = Replacement(transform, layout, settings, clock, on_chunk, logger, only=only)
    return replacement.run(
        partial(copy_table, transform.source, client, snapshot_settings, clock, logger)
    )
