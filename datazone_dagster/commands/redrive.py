"""`datazone-dagster redrive`: bring quarantined records back into their dataset."""

from __future__ import annotations

import logging

import click

from datazone_dagster.commands.project import Project, project_options
from datazone_dagster.pipeline import quarantine_report, redrive_dataset

_CHARS = 200


@click.command(short_help="Bring quarantined records of a dataset back.")
@click.argument("dataset_id", metavar="DATASET")
@click.option("--list", "only_list", is_flag=True, help="Only show what waits, and why.")
@project_options
def redrive(project: Project, dataset_id: str, only_list: bool) -> None:
    """Bring the quarantined records of DATASET back, in the order in which they came.

    Do it when what kept them out is mended: the function, or the library. Records that still
    can't be taken stay in the quarantine. A row of the same item that is newer stays as it is.
    Safe at any time, also while Dagster runs.
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
            f"{dataset_id}: {_records(report.redriven)} brought back ({counts.inserted} rows "
            f"inserted, {counts.updated} updated, {counts.deleted} deleted; newer rows stay), "
            f"{_records(report.waiting)} left in the quarantine."
        )
    for reason, count in report.reasons:
        click.echo(f"  {count} x {reason[:_CHARS]}")


def _records(count: int) -> str:
    return f"{count} record{'' if count == 1 else 's'}"
