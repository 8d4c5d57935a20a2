"""`datazone-dagster rebuild`: rebuild a dataset with the current code."""

from __future__ import annotations

from functools import partial

import click

from datazone_dagster.commands.output import json_option, note, say, say_json
from datazone_dagster.commands.project import Project, project_options
from datazone_dagster.dagster_glue.jobs.repairs import Repair, report_outside_runs
from datazone_dagster.model.report import ChunkReport


@click.command(short_help="Rebuild a dataset from the change log and swap it in.")
@click.argument("dataset_id", metavar="DATASET")
@json_option
@project_options
def rebuild(project: Project, dataset_id: str, as_json: bool) -> None:
    """Rebuild DATASET from the change log with your current function.

    Use it after a column changed its type, to add columns that a policy left out, after a fix of
    the function, or for another mode or partitioning. The dataset, its readers and all other
    datasets are not affected until one commit swaps the new rows in. Older versions of the table
    can still be read. An interrupted rebuild leaves the dataset as it was: run the command again.
    """
    transform, dataset = project.writer_of(dataset_id)
    project.require_change_log(transform.source)

    def show(chunk: ChunkReport) -> None:
        say(f"Batch {chunk.last_batch} of {chunk.head}: {chunk.records:,} changes.")

    repair = Repair(
        transform, dataset, project.keys_of(transform), project.layout, preview=project.preview
    )
    report = repair.rebuild(None if as_json else show)
    applied, proof = report.applied, report.proof
    not_reported = report_outside_runs(partial(repair.rebuilt_events, report))
    if as_json:
        compared = ("changes", "keys", "rows_keys", "without_rows")
        say_json(
            {
                "dataset": dataset_id,
                "generation": report.generation,
                "rows": applied.row_count,
                "position": applied.position,
                "head_batch": applied.head,
                "quarantined": applied.quarantined,
                "proof": {name: getattr(proof, name) for name in compared},
                "unshown_keys": report.unshown_keys,
                "not_reported": not_reported,
            }
        )
        return
    say(
        f"Dataset {dataset_id} is rebuilt (number {report.generation}): {applied.row_count:,} rows "
        f"at batch {applied.position} of {applied.head}, {applied.quarantined:,} records "
        "quarantined."
    )
    say(
        f"Checked before the swap, with {proof.changes:,} changes: {proof.rows_keys:,} of "
        f"{proof.keys:,} keys have rows; {proof.without_rows:,} were not deleted and have none."
    )
    if report.unshown_keys:
        say(
            f"{report.unshown_keys:,} keys have rows that neither the last resync nor a change "
            "since has shown. They may have been deleted while changes were lost: "
            f"`datazone-dagster resync {transform.source.name}` deletes those that are gone."
        )
    note(not_reported)
