"""`datazone-dagster redrive`: apply quarantined records to their dataset."""

from __future__ import annotations

import logging

import click

from datazone_dagster.commands.project import Project, project_options
from datazone_dagster.pipeline import quarantine_report, redrive_dataset

_REASON_CHARACTERS = 200


@click.command(short_help="Apply the quarantined records of a dataset.")
@click.argument("dataset_id", metavar="DATASET")
@click.option("--list", "only_list", is_flag=True, help="Only list the records and the reasons.")
@project_options
def redrive(project: Project, dataset_id: str, only_list: bool) -> None:
    """Apply the quarantined records of DATASET, in the order in which they arrived.

    Run it once the function or the library is fixed. Records that still fail stay in the
    quarantine. Newer rows of the same item are not overwritten. Safe at any time, also while
    Dagster runs.
    """
    transform, _ = project.writer_of(dataset_id)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    if only_list:
        report = quarantine_report(transform, dataset_id, project.layout)
        click.echo(f"{dataset_id}: {_records(report.waiting)} in the quarantine.")
    else:
        report = redrive_dataset(transform, dataset_id, project.layout)
        counts = report.counts
        click.echo(
            f"{dataset_id}: {_records(report.redriven)} applied ({counts.inserted} rows "
            f"inserted, {counts.updated} updated, {counts.deleted} deleted; newer rows stay), "
            f"{_records(report.waiting)} left in the quarantine."
        )
    for reason, count in report.reasons:
        click.echo(f"  {count} x {reason[:_REASON_CHARACTERS]}")


def _records(count: int) -> str:
    return f"{count} record{'' if count == 1 else 's'}"
