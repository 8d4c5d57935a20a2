"""`datazone-dagster audit`: compare datasets with the table as it is now."""

from __future__ import annotations

import sys

import click

from datazone_dagster.commands.output import note, say, say_json
from datazone_dagster.commands.project import Project, project_options
from datazone_dagster.model.audit_report import KINDS, AuditPlan, AuditReport, DatasetAudit
from datazone_dagster.pipeline import AuditSettings, audit_source
from datazone_dagster.text import shown

DIFFERENT = 1
UNDECIDED = 2


@click.command(short_help="Compare datasets with the table as it is now.")
@click.argument("source_name", metavar="SOURCE")
@click.option("--dataset", "dataset_ids", multiple=True, help="Only this dataset; repeatable.")
@click.option(
    "--sample",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=1.0,
    show_default=True,
    help="Share of the table to scan.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed that draws the sample's segments."
)
@click.option(
    "--wait-seconds",
    type=click.FloatRange(min=0),
    default=900.0,
    show_default=True,
    help="Longest wait for the drain and the runs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan and the result as JSON.")
@project_options
def audit(
    project: Project,
    source_name: str,
    dataset_ids: tuple[str, ...],
    sample: float,
    seed: int,
    wait_seconds: float,
    as_json: bool,
) -> None:
    """Compare the datasets of SOURCE with its DynamoDB table, by key and hash of the rows.

    Scans the table and reads the datasets; changes neither. Dagster has to run meanwhile: what
    differs is looked at again once its drain and its runs have passed the look, so writes to the
    table raise no alarm. Needs dynamodb:DescribeTable, Scan and BatchGetItem.

    Exit code: 0 nothing differs, 1 rows are missing, extra or stale, 2 something could not be
    decided, or the audit failed.
    """
    source = project.source_of(source_name)
    project.require_change_log(source)
    report = audit_source(
        source,
        project.transforms,
        project.layout,
        project.table_client(source),
        dataset_ids=dataset_ids,
        settings=AuditSettings(sample=sample, seed=seed, wait_seconds=wait_seconds),
        on_plan=None if as_json else _explain,
    )
    if as_json:
        say_json(report.to_json())
    else:
        _tell(report)
    if report.has_differences:
        sys.exit(DIFFERENT)
    if report.is_undecided:
        sys.exit(UNDECIDED)


def _explain(plan: AuditPlan) -> None:
    part = "all" if plan.sample >= 1 else f"{plan.segments} of {plan.segments_total} segments"
    say(
        f"Scans {part} of the table of source {plan.source}: about "
        f"{plan.item_count * plan.sample:,.0f} items as the service last counted, "
        f"{plan.read_units:,.0f} read units at up to {plan.units_per_second:,.0f} a second, "
        f"${plan.price:,.4f} on an on-demand table in us-east-1."
    )
    for dataset_id, reason in plan.skipped.items():
        note(f"{dataset_id} is not audited: {reason}.")


def _tell(report: AuditReport) -> None:
    for one in report.datasets:
        counts = ", ".join(f"{one.differences.get(kind, 0):,} {kind}" for kind in KINDS)
        say(
            f"{one.dataset_id}: {one.items:,} items and {one.rows:,} rows compared: {counts}. "
            f"{one.changed:,} had only changed meanwhile."
        )
        _tell_more(one)
    for dataset_id, reason in report.plan.skipped.items():
        say(f"{dataset_id}: not audited, {reason}.")
    words = {
        "clean": "Clean: the datasets show the scanned items of the table.",
        "differences": "The datasets differ from the table.",
        "undecided": "Not everything could be decided.",
    }
    say(f"{words[report.result]} {report.read_units:,.0f} read units used.")


def _tell_more(one: DatasetAudit) -> None:
    for kind, keys in one.examples.items():
        say(f"  {kind}: {', '.join(map(shown, keys))}")
    for reason, count in one.undecided.items():
        say(f"  {count:,} undecided: {reason}")
    if one.refused:
        say(f"  {one.refused:,} items are refused by the function or the contract: see redrive")
    for column, reason in one.not_compared.items():
        say(f"  column {shown(column)} is not compared: {reason}")
