"""`datazone-dagster maintain`: all maintenance of a table that is worth its work, at once."""

from __future__ import annotations

from dataclasses import asdict

import click

from datazone_dagster.commands.output import json_option, say, say_json
from datazone_dagster.commands.project import Project, project_options
from datazone_dagster.pipeline import maintain_dataset

MIB = 1 << 20


@click.command(short_help="Join small files, drop hidden rows, delete orphan files.")
@click.argument("dataset_ids", nargs=-1, metavar="[DATASET]...")
@json_option
@project_options
def maintain(project: Project, dataset_ids: tuple[str, ...], as_json: bool) -> None:
    """Maintain the tables of the named datasets, or of all datasets.

    Runs maintain their tables by themselves, a bounded piece after each merge; this command does
    all the work at once. No row changes. A merge that commits in between wins: run the command
    again then.
    """
    written = [project.writer_of(one) for one in dataset_ids or sorted(project.datasets)]
    sources = dict.fromkeys(transform.source for transform, _ in written)
    if all(source.stream_enabled for source in sources):
        project.require_change_log(*sources)
    found: list[dict[str, object]] = []
    for _, dataset in written:
        dataset_id = dataset.id
        report = maintain_dataset(dataset, project.layout)
        if as_json:
            about = {"dataset": dataset_id, "uri": project.layout.dataset(dataset_id)}
            found.append({**about, **({} if report is None else asdict(report))})
            continue
        if report is None:
            say(f"{dataset_id}: no table yet at {project.layout.dataset(dataset_id)}")
            continue
        say(
            f"{dataset_id}: {report.did or 'nothing to do'}; {report.rows} rows, "
            f"{report.hidden_rows} hidden, in {report.files} files of "
            f"{report.size_bytes / MIB:.1f} MiB ({report.duration_seconds:.1f} s)"
        )
    if as_json:
        say_json({"datasets": found})
