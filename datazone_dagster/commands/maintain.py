"""`datazone-dagster maintain`: all maintenance of a table that is worth its work, at once."""

from __future__ import annotations

from dataclasses import asdict
from itertools import chain

import click

from datazone_dagster.commands.output import json_option, say, say_json
from datazone_dagster.commands.project import Project, project_options
from datazone_dagster.pipeline import maintain_dataset
from datazone_dagster.pipeline.table_calls import asset_tables, maintain_asset_table

MIB = 1 << 20


@click.command(short_help="Join small files, drop hidden rows, delete orphan files.")
@click.argument("dataset_ids", nargs=-1, metavar="[DATASET]...")
@json_option
@project_options
def maintain(project: Project, dataset_ids: tuple[str, ...], as_json: bool) -> None:
    """Maintain the named tables, or those of all datasets and of all other assets.

    Runs maintain their tables by themselves, a bounded piece after each merge; this command does
    all the work at once. No row changes. A merge that commits in between wins: run the command
    again then.
    """
    layout = project.layout
    unknown = [one for one in dataset_ids if one not in project.datasets]
    tables = asset_tables(layout) if unknown or not dataset_ids else []
    others = [one for one in tables if one in unknown or not dataset_ids]
    ids = [one for one in dataset_ids or sorted(project.datasets) if one not in others]
    datasets = [project.writer_of(one) for one in ids]
    sources = dict.fromkeys(transform.source for transform, _ in datasets)
    if sources and all(source.stream_enabled for source in sources):
        project.require_change_log(*sources)
    found: list[dict[str, object]] = []
    for name, report in chain(
        ((one.id, maintain_dataset(one, layout)) for _, one in datasets),
        ((one, maintain_asset_table(layout, one)) for one in others),
    ):
        if as_json:
            about = {"dataset": name, "uri": layout.table(name)}
            found.append({**about, **({} if report is None else asdict(report))})
        elif report is None:
            say(f"{name}: no table yet at {layout.table(name)}")
        else:
            say(
                f"{name}: {report.did or 'nothing to do'}; {report.rows} rows, "
                f"{report.hidden_rows} hidden, in {report.files} files of "
                f"{report.size_bytes / MIB:.1f} MiB ({report.duration_seconds:.1f} s)"
            )
    if as_json:
        say_json({"datasets": found})
