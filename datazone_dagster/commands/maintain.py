"""`datazone-dagster maintain`: everything that is worth doing for a table, now."""

from __future__ import annotations

import click

from datazone_dagster.apply.maintain_dataset import order_of
from datazone_dagster.commands.project import Project, project_options
from datazone_dagster.pipeline import utc_now
from datazone_dagster.rows.maintenance_plan import MIB, THOROUGH
from datazone_dagster.rows.table_maintenance import maintain as maintain_table


@click.command(short_help="Join small files, drop hidden rows, delete leftovers.")
@click.argument("dataset_ids", nargs=-1, metavar="[DATASET]...")
@project_options
def maintain(project: Project, dataset_ids: tuple[str, ...]) -> None:
    """Maintain the tables of datasets, of all of them if none is named.

    Runs do this by themselves, a bounded piece after a merge; here nothing worth doing is put
    off. No row changes, and a merge that comes in between wins: run it again then.
    """
    for dataset_id in dataset_ids or sorted(project.datasets):
        _, dataset = project.writer_of(dataset_id)
        report = maintain_table(
            project.layout, dataset.id, THOROUGH, utc_now(), order_by=order_of(dataset)
        )
        if report is None:
            click.echo(f"{dataset_id}: no table yet")
            continue
        click.echo(
            f"{dataset_id}: {report.did or 'nothing to do'}; {report.rows} rows, "
            f"{report.hidden_rows} hidden, in {report.files} files of "
            f"{report.size_bytes / MIB:.1f} MiB ({report.duration_seconds:.1f} s)"
        )
