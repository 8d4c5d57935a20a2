"""Jobs `snapshot_<source>` and `resync_<source>`: take the snapshot of a source, or go on with it.

The drain sensor starts the first one by itself. Both continue where an earlier run stopped, however
that run ended: what was scanned is landed together with the keys to go on from.
"""

# No postponed annotations here: Dagster reads the real one of `context`.

from dataclasses import replace
from datetime import datetime, timedelta

from dagster import (
    AssetKey,
    AssetObservation,
    Field,
    GraphDefinition,
    JobDefinition,
    Noneable,
    OpDefinition,
    OpExecutionContext,
    in_process_executor,
    op,
)

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.checks.rendering import rendered
from datazone_dagster.dagster_glue.checks.sample_audit import audit_sample
from datazone_dagster.dagster_glue.names import (
    DYNAMODB_KEY,
    FAILURE_TAG,
    LAKEHOUSE_KEY,
    WAIT_TAG,
    resync_job_name,
    snapshot_job_name,
    snapshot_pool_name,
)
from datazone_dagster.dagster_glue.resources import DynamoDBStreamsResource
from datazone_dagster.dagster_glue.runs.heartbeat import heartbeats
from datazone_dagster.dagster_glue.runs.run_place import name_lakehouse
from datazone_dagster.dagster_glue.shared import Group
from datazone_dagster.errors import DatazoneError, SnapshotError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.snapshot_report import SnapshotReport
from datazone_dagster.model.snapshot_state import Phase
from datazone_dagster.observe.snapshot_progress import (
    estimate_line,
    progress_line,
    snapshot_metadata,
)
from datazone_dagster.pipeline import SnapshotSettings, snapshot_source, want_snapshot
from datazone_dagster.text import shown

LOG_EVERY = timedelta(seconds=15)
OBSERVE_EVERY = timedelta(minutes=1)
"""Interval at which a running snapshot goes to the event log of the change log's asset."""

_REASON_CHARS = 600


def snapshot_jobs(
    source: DynamoDBSource,
    keys: AssetKeys,
    group: Group,
    settings: SnapshotSettings,
    *,
    clock: Clock,
) -> tuple[JobDefinition, JobDefinition]:
    """Return the jobs of one source; `group` has the transforms whose datasets hand over."""
    return (
        _job(
            snapshot_job_name(source),
            _op(source, keys, group, settings, clock, resync=False),
            f"Copies the DynamoDB table {source.table_name} as it is into the change log, next to "
            "the stream. Goes on where an earlier run stopped. Safe at any time.",
        ),
        _job(
            resync_job_name(source),
            _op(source, keys, group, settings, clock, resync=True),
            f"Takes a new snapshot of the DynamoDB table {source.table_name}, which repairs lost "
            "changes in place, or goes on with the one that is under way.",
        ),
    )


def _op(
    source: DynamoDBSource,
    keys: AssetKeys,
    group: Group,
    settings: SnapshotSettings,
    clock: Clock,
    *,
    resync: bool,
) -> OpDefinition:
    name = resync_job_name(source) if resync else snapshot_job_name(source)
    change_log = keys.change_log(source)

    @op(
        name=f"{name}_op",
        pool=snapshot_pool_name(source, keys.prefix),
        required_resource_keys={LAKEHOUSE_KEY, DYNAMODB_KEY},
        ins={},
        config_schema={
            "sweep_limit": Field(
                Noneable(float),
                is_required=False,
                default_value=None,
                description="Share of a dataset's rows, 0 to 1, that this run may delete because "
                "the table does not have them any more. None: that of build_definitions.",
            )
        },
    )
    def take_snapshot(context: OpExecutionContext) -> None:
        layout: Layout = getattr(context.resources, LAKEHOUSE_KEY).layout
        dynamodb: DynamoDBStreamsResource = getattr(context.resources, DYNAMODB_KEY)
        client = dynamodb.table_client(
            source.table_name, region=source.region, endpoint_url=source.endpoint_url
        )
        bounds, limit = settings, context.op_config["sweep_limit"]
        if limit is not None:
            bounds = replace(settings, sweep_limit=limit)
        progress = _Progress(context, change_log, clock)
        name_lakehouse(context.instance, context.run, layout)
        with heartbeats(context.instance, context.run_id, clock, rest_is_quick=True):
            # Broad on purpose: whatever ended the snapshot, the sensor is told, and the run fails.
            try:
                if resync:
                    want_snapshot(source.name, layout, "resync", clock=clock)
                report = snapshot_source(
                    source,
                    layout,
                    client,
                    dataset_ids=group.dataset_ids,
                    settings=bounds,
                    patience_seconds=bounds.run_waits_seconds,
                    on_progress=progress.show,
                    clock=clock,
                    logger=context.log,
                )
            except Exception as error:
                _record_failure(context, error, progress)
                raise
            progress.end(report)
            if report.waits_for:
                context.instance.add_run_tags(context.run_id, {WAIT_TAG: report.waits_for})
            audit_sample(
                context, change_log, source, group.transforms, layout, client, report, bounds, clock
            )

    return take_snapshot


class _Progress:
    """Progress of one run, in its log and as observations of the change log."""

    def __init__(self, context: OpExecutionContext, change_log: AssetKey, clock: Clock) -> None:
        self._context = context
        self._change_log = change_log
        self._clock = clock
        self._first: SnapshotReport | None = None
        self._last: SnapshotReport | None = None
        self._logged: tuple[Phase, str, datetime] | None = None
        self._line = ""
        self._observed: tuple[SnapshotReport, datetime] | None = None

    @property
    def landed_rows(self) -> bool:
        """Whether this run brought the snapshot forward."""
        return (
            self._first is not None
            and self._last is not None
            and ((self._first.rows, self._first.phase) != (self._last.rows, self._last.phase))
        )

    def show(self, report: SnapshotReport) -> None:
        """Log the progress, and observe it, if something is new or some time has passed."""
        now = self._clock()
        if self._first is None:
            self._first = report
            self._context.log.info("%s", estimate_line(report))
        self._last = report
        news = (report.phase, report.waits_for)
        if self._logged is None or self._logged[:2] != news or now - self._logged[2] >= LOG_EVERY:
            self._logged = (*news, now)
            self._log(report)
        last = self._observed
        if last is None or last[0].phase is not report.phase or now - last[1] >= OBSERVE_EVERY:
            self._observe(report, now)

    def end(self, report: SnapshotReport) -> None:
        """Log and observe where the run ended, unless the last progress said just that."""
        self._last = report
        self._log(report)
        if self._observed is None or self._observed[0] != report:
            self._observe(report, self._clock())

    def _log(self, report: SnapshotReport) -> None:
        line = progress_line(report)
        if line != self._line:
            self._line = line
            self._context.log.info("%s", line)

    def _observe(self, report: SnapshotReport, now: datetime) -> None:
        self._observed = (report, now)
        self._context.log_event(
            AssetObservation(
                self._change_log,
                description=progress_line(report),
                metadata=rendered(snapshot_metadata(report)),
            )
        )


def _record_failure(context: OpExecutionContext, error: Exception, progress: _Progress) -> None:
    """Tag the run, so that the next one waits; not if it got on: the next one goes on at once."""
    text = error.what if isinstance(error, DatazoneError) else str(error)
    if isinstance(error, DatazoneError) and error.hint:
        text = f"{text} {error.hint}"
    if not progress.landed_rows or isinstance(error, SnapshotError):
        reason = shown(f"{type(error).__name__}: {text}", _REASON_CHARS)
        context.instance.add_run_tags(context.run_id, {FAILURE_TAG: reason})


def _job(name: str, node: OpDefinition, description: str) -> JobDefinition:
    return GraphDefinition(name, node_defs=[node]).to_job(
        name=name, executor_def=in_process_executor, description=description
    )
