"""Audit of a sample by the run that has handed a snapshot over: the proof of "consistent since"."""

# No postponed annotations here, as in the module that calls it.

from dagster import AssetKey, AssetObservation, OpExecutionContext

from datazone_dagster.api import DynamoDBSource, Transform
from datazone_dagster.dagster_glue.checks.rendering import rendered
from datazone_dagster.errors import DatazoneError, SnapshotError
from datazone_dagster.model.audit_report import KINDS, AuditReport
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.snapshot_report import SnapshotReport
from datazone_dagster.model.snapshot_state import Phase
from datazone_dagster.model.table_scan import TableClient
from datazone_dagster.observe.metadata import Plain
from datazone_dagster.pipeline import AuditSettings, SnapshotSettings, audit_source
from datazone_dagster.text import shown

SAMPLE_ITEMS = 20_000
"""Number of items that are compared, about; a table with fewer is compared as a whole."""

_LEAST_SHARE = 1e-5


def audit_sample(
    context: OpExecutionContext,
    change_log: AssetKey,
    source: DynamoDBSource,
    transforms: tuple[Transform, ...],
    layout: Layout,
    client: TableClient,
    snapshot: SnapshotReport,
    bounds: SnapshotSettings,
    clock: Clock,
) -> None:
    """Compare a sample of the table with the datasets once a snapshot is done; observe the result.

    An audit that can't be made is a warning: the snapshot is handed over in any case.

    Args:
        context: The run.
        change_log: Key of the change log, which the result is observed of.
        source: The source.
        transforms: Transforms of the source.
        layout: Locations of the tables.
        client: Client of the table.
        snapshot: Snapshot as the run leaves it; nothing is audited before its handover.
        bounds: Bounds of the run: it waits no longer for the drain and the datasets.
        clock: Source of the current time.

    Raises:
        SnapshotError: Datasets differ from the table.
    """
    if snapshot.phase is not Phase.DONE:
        return
    items = snapshot.item_count or snapshot.rows
    try:
        report = audit_source(
            source,
            transforms,
            layout,
            client,
            settings=sample_settings(items, bounds.run_waits_seconds, clock),
            clock=clock,
            logger=context.log,
        )
    except DatazoneError as error:
        context.log.warning("The sample was not audited: %s", error)
        return
    line = audit_line(report)
    context.log.info("%s", line)
    context.log_event(
        AssetObservation(change_log, description=line, metadata=rendered(audit_metadata(report)))
    )
    if report.has_differences:
        raise SnapshotError(
            line,
            safe="The snapshot is handed over; the audit has changed nothing.",
            hint=f"See `datazone-dagster audit {source.name}` for the whole table, then rebuild "
            "the dataset or take a new snapshot.",
        )


def sample_settings(items: int, wait_seconds: float, clock: Clock) -> AuditSettings:
    """Return settings that draw another sample of a table of that many items each day."""
    return AuditSettings(
        sample=min(1.0, max(_LEAST_SHARE, SAMPLE_ITEMS / max(1, items))),
        seed=clock().toordinal(),
        wait_seconds=wait_seconds,
    )


def audit_line(report: AuditReport) -> str:
    """Describe the result of a sample, with examples of keys."""
    parts = [
        f"{one.dataset_id}: {one.items:,} items compared, "
        + ", ".join(f"{one.differences.get(kind, 0):,} {kind}" for kind in KINDS)
        + (f", {sum(one.undecided.values()):,} undecided" if one.undecided else "")
        + "".join(
            f"; {kind}, for example: {', '.join(map(shown, keys))}"
            for kind, keys in one.examples.items()
        )
        for one in report.datasets
    ]
    skipped = [f"{name}: not audited, {reason}" for name, reason in report.plan.skipped.items()]
    return f"Audit of a sample: {report.result}. {'. '.join((*parts, *skipped))}."


def audit_metadata(report: AuditReport) -> dict[str, Plain]:
    """Return the numbers of a result."""
    counts: dict[str, Plain] = {
        f"audit_{kind}": sum(one.differences.get(kind, 0) for one in report.datasets)
        for kind in KINDS
    }
    return {
        "audit_result": report.result,
        "audit_items": sum(one.items for one in report.datasets),
        "audit_undecided": sum(sum(one.undecided.values()) for one in report.datasets),
        "audit_read_units": report.read_units,
        **counts,
    }
