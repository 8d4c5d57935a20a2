"""Limits of Dagster's run queue for runs with a tag (`tag_concurrency_limits`), who reaches them.

A tag with a value, or without one: then it counts for all values together, or for each on its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dagster import DagsterInstance, DagsterRun, RunsFilter

from datazone_dagster.dagster_glue.runs.full_queue import AT_WORK, RUNS_READ


class TagLimit(NamedTuple):
    """A limit for some runs: the tag that they have, the limit, and how many of them there are."""

    tag: str
    limit: int
    runs: int


def exceeded_limits(
    instance: DagsterInstance, tags_of_runs: Sequence[Mapping[str, str]]
) -> list[TagLimit]:
    """Return the limits that do not let all of some runs work at a time.

    Args:
        instance: Dagster instance.
        tags_of_runs: Tags of each run.
    """
    found = []
    for limit in _limits(instance):
        counts = Counter(tag for tags in tags_of_runs if (tag := _counted(limit, tags)))
        found += [
            TagLimit(tag, limit["limit"], runs)
            for tag, runs in counts.items()
            if runs > limit["limit"]
        ]
    return found


def tag_wait(instance: DagsterInstance, run: DagsterRun) -> str:
    """Return which limit keeps a run in the queue, and who reaches it, as a clause.

    Empty if no limit does.
    """
    limits = [one for one in _limits(instance) if _counted(one, run.tags)]
    at_work = instance.get_runs(RunsFilter(statuses=AT_WORK), limit=RUNS_READ) if limits else ()
    for limit in limits:
        tag = _counted(limit, run.tags)
        like = [one.job_name for one in at_work if _counted(limit, one.tags) == tag]
        if len(like) >= limit["limit"]:
            at_work_now = f"; at work: {', '.join(sorted(set(like)))}" if like else ""
            return (
                f"{run.job_name} waits in the queue: Dagster starts {limit['limit']} of the runs "
                f"with the tag {tag} at a time (tag_concurrency_limits){at_work_now}"
            )
    return ""


def _limits(instance: DagsterInstance) -> Sequence[Mapping[str, Any]]:
    queue = instance.get_concurrency_config().run_queue_config
    return queue.tag_concurrency_limits if queue else ()


def _counted(limit: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """Return what a run counts as; empty if the limit is not for it."""
    key, wanted = limit["key"], limit.get("value")
    if key not in tags or (isinstance(wanted, str) and tags[key] != wanted):
        return ""
    of_each = isinstance(wanted, Mapping) and wanted.get("applyLimitPerUniqueValue")
    return f"{key}={tags[key]}" if of_each or isinstance(wanted, str) else str(key)
