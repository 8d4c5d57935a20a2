"""Limits of the library's own pools; those of other pools are their users' business.

Dagster's `default_limit` would limit every pool of an instance. So each pool of ours that has no
limit of its own gets 1, or the number of a transform's buckets. A limit that somebody has set
stays: the fences of the tables keep two runs of one transform apart all the same, but the one that
loses has worked in vain.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

POOL_LIMIT = 1

_ENDED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]

_logger = logging.getLogger(__name__)


def limit_pools(instance: DagsterInstance, pools: Collection[str], limit: int = POOL_LIMIT) -> None:
    """Give each of these pools a limit, of 1 as a rule, unless somebody has set one.

    A limit that a pool has from `default_limit` counts as unset. A storage that refuses is no
    reason to stop: the fences hold.
    """
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    # Broad on purpose: whatever the storage raises, runs are safe without a limit.
    try:
        limited = {one.name for one in storage.get_pool_limits() if not one.from_default}
        for pool in sorted(set(pools) - limited):
            storage.set_concurrency_slots(pool, limit)
            _logger.info("The pool %s has a limit of %d from now on.", pool, limit)
    except Exception as error:  # noqa: BLE001 - see above
        _logger.warning("The limit of the pools %s could not be set: %s", sorted(pools), error)


def pool_limit(instance: DagsterInstance, pool: str) -> int | None:
    """Return the limit of a pool; None if it has none."""
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return None
    return next((one.limit for one in storage.get_pool_limits() if one.name == pool), None)


def counts_runs(instance: DagsterInstance) -> bool:
    """Return whether pools hold whole runs in the queue; else, steps wait for slots."""
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return False
    granularity = storage.get_pool_config().pool_granularity
    return getattr(granularity, "value", "op") == "run"


def free_pools(instance: DagsterInstance, pools: Collection[str]) -> None:
    """Free the slots that ended runs hold: Dagster leaves those of a process that was killed.

    It also leaves the place of a step that waited for a slot, and gives it the next free one.
    Its run monitoring frees both only with `free_slots_after_run_end_seconds`.
    """
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits or not storage.get_concurrency_run_ids():
        return
    infos = [storage.get_concurrency_info(one) for one in pools]
    found = {
        run_id
        for one in infos
        for run_id in one.active_run_ids | one.assigned_run_ids | one.pending_run_ids
    }
    if not found:
        return
    ended = RunsFilter(run_ids=sorted(found), statuses=_ENDED)
    for record in instance.get_run_records(ended):
        storage.free_concurrency_slots_for_run(record.dagster_run.run_id)
