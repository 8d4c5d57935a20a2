"""`datazone-dagster redrive`: apply quarantined records to their dataset."""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import partial

import click

from datazone_dagster.commands.output import json_option, note, say, say_json
from datazone_dagster.commands.project import Project, project_options
from datazone_dagster.dagster_glue.jobs.repairs import Repair, report_outside_runs
from datazone_dagster.model.report import RedriveReport
from datazone_dagster.pipeline import quarantine_report
from datazone_dagster.text import MESSAGE_CHARS, shown

_SHOWN_REASONS = 20


@click.command(short_help="Apply the quarantined records of a dataset.")
@click.argument("dataset_id", metavar="DATASET")
@click.option("--list", "only_list", is_flag=True, help="Only list the records and the reasons.")
@json_option
@project_options
def redrive(project: Project, dataset_id: str, only_list: bool, as_json: bool) -> None:
    """Apply the quarantined records of DATASET, in the order in which they arrived.

    Run it once the function or the library is fixed. Records that still fail stay in the
    quarantine. Newer rows of the same item are not overwritten. Safe at any time, also while
    Dagster runs.
    """
    transform, dataset = project.writer_of(dataset_id)
    project.require_change_log(transform.source)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    not_reported = None
    if only_list:
        report = quarantine_report(transform, dataset_id, project.layout)
    else:
        repair = Repair(
            transform, dataset, project.keys_of(transform), project.layout, preview=project.preview
        )
        report = repair.redrive()
        not_reported = report_outside_runs(partial(repair.redriven_events, report))
    if as_json:
        say_json({**_plain(report), "not_reported": not_reported})
        return
    if only_list:
        say(f"{dataset_id}: {_records(report.waiting)} in the quarantine.")
    else:
        counts = report.counts
        say(
            f"{dataset_id}: {_records(report.redriven)} applied ({counts.inserted} rows "
            f"inserted, {counts.updated} updated, {counts.deleted} deleted; newer rows stay), "
            f"{_records(report.waiting)} left in the quarantine."
        )
        note(not_reported)
    reasons = list(zip(report.reasons, report.keys, strict=True))
    for (reason, count), keys in reasons[:_SHOWN_REASONS]:
        say(f"  {count:,} x {shown(reason, MESSAGE_CHARS)}")
        more = f" and {count - len(keys):,} more" if count > len(keys) else ""
        say(f"    keys: {', '.join(map(shown, keys)) or 'none'}{more}")
    others = [count for (_, count), _ in reasons[_SHOWN_REASONS:]]
    if others:
        say(f"  {sum(others):,} more for {_other_reasons(len(others))}: --json shows all.")


def _plain(report: RedriveReport) -> dict[str, object]:
    reasons = zip(report.reasons, report.keys, strict=True)
    return {
        "dataset": report.dataset_id,
        "redriven": report.redriven,
        **asdict(report.counts),
        "waiting": report.waiting,
        "reasons": [
            {
                "reason": shown(reason, MESSAGE_CHARS),
                "records": records,
                "keys": [shown(key) for key in keys],
            }
            for (reason, records), keys in reasons
        ],
    }


def _other_reasons(count: int) -> str:
    return "another reason" if count == 1 else f"{count:,} other reasons"


def _records(count: int) -> str:
    return f"{count} record{'' if count == 1 else 's'}"
