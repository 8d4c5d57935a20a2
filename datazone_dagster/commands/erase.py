"""`datazone-dagster erase`: erase items from every table of a source."""

from __future__ import annotations

import sys
from typing import TextIO

import click

from datazone_dagster.commands.output import note, say, say_json
from datazone_dagster.commands.project import Project, project_options
from datazone_dagster.dagster_glue.jobs.erased_mentions import Mention, mentions
from datazone_dagster.model.erasure_report import ErasureReport, TableErasure
from datazone_dagster.pipeline import open_erasure

NOT_DONE = 1

_SHOWN_MENTIONS = 20


@click.command(short_help="Erase items from the change log, datasets and old versions.")
@click.argument("source_name", metavar="SOURCE")
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="KEY",
    help="Key of an item: id=a, pk=a,sk=1 or DynamoDB JSON; repeatable.",
)
@click.option(
    "--file",
    "key_file",
    type=click.File("r", encoding="utf-8"),
    help="File with one key on each line; - is standard input, which leaves no trace in a shell's "
    "history.",
)
@click.option("--yes", is_flag=True, help="Erase without asking.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON: without --yes the plan, erasing nothing."
)
@project_options
def erase(
    project: Project,
    source_name: str,
    keys: tuple[str, ...],
    key_file: TextIO | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Erase items of SOURCE for good: from the change log, all datasets of the source with their
    history, tombstones and quarantines, from old versions and from the statistics of Delta logs.

    Delete the items in DynamoDB first: the next change of an item that is still there brings it
    back. Other items, positions and later changes are not affected. Safe while Dagster runs: a run
    that has read an erased item loses its commit race. If the command is interrupted, run it again.
    """
    source = project.source_of(source_name)
    project.require_change_log(source)
    lines = [] if key_file is None else [line.strip() for line in key_file if line.strip()]
    erasure = open_erasure(source, [*keys, *lines], project.layout)
    plan = erasure.plan()
    if not as_json:
        _explain(plan)
    if not yes and (as_json or not click.confirm("Erase these rows?", err=True)):
        if as_json:
            say_json({"executed": False, **plan.to_json()})
        return
    report = erasure.run()
    found, why_not = mentions(
        erasure.values, source, [(one, project.keys_of(one)) for one in project.transforms]
    )
    if as_json:
        shown = {"dagster_events": [one.to_json() for one in found], "dagster_unread": why_not}
        say_json({"executed": True, **report.to_json(), **shown})
    else:
        _tell(report, found)
        note(why_not)
    if not report.done:
        sys.exit(NOT_DONE)


def _explain(plan: ErasureReport) -> None:
    say(f"{len(plan.found)} of {plan.keys} keys of source {plan.source} have rows.")
    _show_tables(plan, "to erase")
    size_bytes = sum(table.size_bytes for table in plan.tables)
    say(
        f"This rewrites {size_bytes / 1e6:,.1f} MB of files, and deletes the old ones at once: "
        "older versions of these tables can't be read any more. It can't be undone. A run that "
        "reads them now may fail, and the next one repeats its work."
    )
    say("Delete the items in DynamoDB first, or their next change brings them back.")


def _tell(report: ErasureReport, found: list[Mention]) -> None:
    _show_tables(report, "erased")
    if report.done:
        say("Done: a last search through every file found none of the keys.")
    else:
        say("Not done: run the command again.")
    if report.young_files:
        say(
            f"  {report.young_files} files of writers at work may have the keys. A later run of "
            "this command erases them if they are committed, and deletes them after 3 hours if not."
        )
    say("This command does not reach:")
    for place in report.unreachable:
        say(f"  {place}")
    if found:
        say(f"  Events of Dagster that mention the keys, {len(found)} in all; delete their runs:")
    for one in found[:_SHOWN_MENTIONS]:
        say(f"    {one.at:%Y-%m-%d %H:%M:%S} UTC  {one.what}  run {one.run_id or 'none'}")


def _show_tables(report: ErasureReport, done: str) -> None:
    for table in report.tables:
        if table.blocked is not None:
            say(f"  {table.table}: {table.rows} rows can't be erased, because {table.blocked}.")
        elif _has_any(table):
            say(
                f"  {table.table}: {table.rows} rows {done} in {table.files} files, "
                f"{table.old_files} old files, {table.log_files} files of the Delta log."
            )


def _has_any(table: TableErasure) -> bool:
    return bool(table.rows or table.old_files or table.young_files or table.log_files)
