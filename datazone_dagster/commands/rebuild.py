"""`datazone-dagster rebuild`: a dataset made anew by the code as it is now."""

from __future__ import annotations

import click

from datazone_dagster.apply import ApplySettings
from datazone_dagster.apply.rebuild import Rebuild
from datazone_dagster.commands.project import Project, project_options
from datazone_dagster.model.protocols import utc_now
from datazone_dagster.model.report import ChunkReport


@click.command(short_help="Make a dataset anew from the change log, and swap it in.")
@click.argument("dataset_id", metavar="DATASET")
@project_options
def rebuild(project: Project, dataset_id: str) -> None:
    """Make DATASET anew from the change log, by your function as it is now.

    For a column that changed its type, columns that were kept out, a mended function, another
    mode or partitioning. The dataset, its readers and all other datasets notice nothing until
    the new rows take its place, in one commit; older versions of the table can still be read.
    If it is interrupted, the dataset is as it was: run it again.
    """
    transform, dataset = project.writer_of(dataset_id)

    def show(chunk: ChunkReport) -> None:
        click.echo(f"Batch {chunk.last_batch} of {chunk.head}: {chunk.records:,} changes.")

    report = Rebuild(
        transform,
        dataset,
        project.layout,
        settings=ApplySettings(),
        clock=utc_now,
        on_chunk=show,
    ).run()
    applied = report.applied
    click.echo(
        f"Dataset {dataset_id} is rebuilt (number {report.generation}): {applied.row_count:,} rows "
        f"at batch {applied.position} of {applied.head}, {applied.quarantined:,} records "
        "quarantined."
    )
