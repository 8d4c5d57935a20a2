"""`datazone-dagster rebuild`: rebuild a dataset with the current code."""

from __future__ import annotations

import click

from datazone_dagster.commands.project import Project, project_options
from datazone_dagster.model.report import ChunkReport
from datazone_dagster.pipeline import rebuild_dataset


@click.command(short_help="Rebuild a dataset from the change log and swap it in.")
@click.argument("dataset_id", metavar="DATASET")
@project_options
def rebuild(project: Project, dataset_id: str) -> None:
    """Rebuild DATASET from the change log with your current function.

    Use it after a column changed its type, to add columns that a policy left out, after a fix of
    the function, or for another mode or partitioning. The dataset, its readers and all other
    datasets are not affected until one commit swaps the new rows in. Older versions of the table
    can still be read. An interrupted rebuild leaves the dataset as it was: run the command again.
    """
    transform, _ = project.writer_of(dataset_id)

    def show(chunk: ChunkReport) -> None:
        click.echo(f"Batch {chunk.last_batch} of {chunk.head}: {chunk.records:,} changes.")

    report = rebuild_dataset(transform, dataset_id, project.layout, on_chunk=show)
    applied = report.applied
    click.echo(
        f"Dataset {dataset_id} is rebuilt (number {report.generation}): {applied.row_count:,} rows "
        f"at batch {applied.position} of {applied.head}, {applied.quarantined:,} records "
        "quarantined."
    )
