"""`datazone-dagster accept-function`: leave rows of older versions of a function as they are."""

from __future__ import annotations

import click

from datazone_dagster.api.function_version import function_version
from datazone_dagster.commands.output import json_option, say, say_json
from datazone_dagster.commands.project import Project, project_options
from datazone_dagster.pipeline import accept_function as accept


@click.command(short_help="Accept rows that an older version of the function made.")
@click.argument("dataset_id", metavar="DATASET")
@json_option
@project_options
def accept_function(project: Project, dataset_id: str, as_json: bool) -> None:
    """Count all rows of DATASET as made by your current function.

    Use it when the check `function` warns and the rows of the older version may stay as they are;
    `rebuild` makes them again instead. No row changes. The check passes with the next run.
    """
    transform, _ = project.writer_of(dataset_id)
    project.require_change_log(transform.source)
    before = accept(transform, dataset_id, project.layout)
    version = function_version(transform)
    others = before.record.other_batches(version, before.position)
    batches = sum(last - first + 1 for first, last in others)
    if as_json:
        accepted = {"dataset": dataset_id, "accepted_batches": batches, "version": version}
        say_json({**accepted, "position": before.position})
        return
    if not others and not before.record.missing(before.columns):
        say(f"Dataset {dataset_id} has no rows of another version of its function.")
        return
    say(
        f"Dataset {dataset_id}: rows of {batches:,} batches that another version made are "
        f"accepted. Version {version} counts for all rows up to batch {before.position}."
    )
