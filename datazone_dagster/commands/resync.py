"""`datazone-dagster resync`: ask for a new snapshot of a table, which repairs lost changes."""

from __future__ import annotations

import click

from datazone_dagster.commands.output import say, say_json
from datazone_dagster.commands.project import Project, project_options
from datazone_dagster.model.snapshot_report import SnapshotReport
from datazone_dagster.model.snapshot_state import Phase
from datazone_dagster.observe.snapshot_progress import estimate_line, progress_line
from datazone_dagster.pipeline import cancel_snapshot, open_gaps, plan_snapshot, want_snapshot


@click.command(short_help="Take a new snapshot of a table: repairs lost changes.")
@click.argument("source_name", metavar="SOURCE")
@click.option("--yes", is_flag=True, help="Ask for it without a question.")
@click.option("--cancel", is_flag=True, help="Give up the snapshot that is under way, for good.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON: without --yes and --cancel the plan, changing nothing.",
)
@project_options
def resync(project: Project, source_name: str, yes: bool, cancel: bool, as_json: bool) -> None:
    """Ask for a new snapshot of SOURCE, or for the one under way to go on.

    The drain sensor starts the job snapshot_SOURCE for it within seconds, so Dagster has to run.
    The job scans the table next to the stream. Then rows that the table does not have any more are
    deleted, and the open gaps from before count as repaired. Datasets stay readable meanwhile.
    """
    source = project.source_of(source_name)
    project.require_change_log(source)
    if cancel:
        _cancel(project, source.name, as_json)
        return
    plan = plan_snapshot(source, project.layout, project.table_client(source))
    gaps = len(open_gaps(source.name, project.layout))
    goes_on = plan.phase is not Phase.WANTED
    if not as_json:
        _explain(plan, gaps, goes_on=goes_on)
    execute = yes or (not as_json and click.confirm("Ask for it?", err=True))
    if execute:
        want_snapshot(source.name, project.layout, "resync")
    if as_json:
        found = {"executed": execute, "goes_on": goes_on, "gaps": gaps}
        say_json({**found, **_plain(plan)})
    elif execute:
        say(
            f"Asked. The sensor drain_{source.name} starts the job snapshot_{source.name}. "
            "See how far it is: datazone-dagster status"
        )


def _cancel(project: Project, source_name: str, as_json: bool) -> None:
    state = cancel_snapshot(source_name, project.layout)
    phase = None if state is None else state.phase.value
    if as_json:
        say_json({"source": source_name, "phase": phase})
    elif state is None:
        say(f"Source {source_name} has no snapshot.")
    else:
        say(f"The snapshot of {source_name} is {phase}. What it landed stays.")


def _explain(plan: SnapshotReport, gaps: int, *, goes_on: bool) -> None:
    say(progress_line(plan) if goes_on else f"A new snapshot of source {plan.source}.")
    say(estimate_line(plan))
    say(
        f"It repairs {gaps} open gap{'' if gaps == 1 else 's'}: every item lands as it is, and "
        "rows whose items are gone are deleted once the table has confirmed each. More than 5 % of "
        "a dataset (sweep_limit) are not deleted without a question."
    )
    say(
        "Risk: the scan uses read capacity of the table, up to its limit (snapshot_rcu). Append "
        "datasets get every item once as SNAPSHOT; in history, states between are unknown. It "
        "can be cancelled, and goes on where it stopped."
    )


def _plain(plan: SnapshotReport) -> dict[str, object]:
    return {
        "source": plan.source,
        "phase": plan.phase.value,
        "rows": plan.rows,
        "items": plan.item_count,
        "bytes": plan.table_bytes,
        "read_units": plan.estimated_read_units,
        "price": plan.estimated_price,
        "limit_read_units_per_second": plan.limit_units_per_second,
        "seconds": plan.eta_seconds,
    }
