"""Slots of pools that one step holds for other steps of its run.

Where pools count ops, each step claims its own slot when it starts. A step that does the work of
others claims theirs, in their names: when they start, they find their slots claimed. Where pools
count runs, Dagster's queue has done it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from dagster import DagsterInstance

_logger = logging.getLogger(__name__)


class HeldSlots:
    """Slots that a step of a run has claimed for other steps.

    A storage that refuses is no reason to stop: the fences of the tables keep writers apart.
    """

    def __init__(self, instance: DagsterInstance, run_id: str) -> None:
        self._storage = instance.event_log_storage
        self._run_id = run_id
        self._asked: set[str] = set()
        self._counts_ops = self._storage.supports_global_concurrency_limits
        if self._counts_ops:
            granularity = self._storage.get_pool_config().pool_granularity
            self._counts_ops = getattr(granularity, "value", "op") == "op"

    def claim(self, pool: str, step_key: str) -> bool:
        """Claim the slot of a step; return False while others have all slots of the pool."""
        if not self._counts_ops:
            return True
        # Broad on purpose: whatever the storage raises, runs are safe without a limit.
        try:
            if pool not in {one.name for one in self._storage.get_pool_limits()}:
                return True
            self._asked.add(step_key)
            claim = self._storage.claim_concurrency_slot(pool, self._run_id, step_key)
            return bool(claim.is_claimed)
        except Exception as error:  # noqa: BLE001 - see above
            _logger.info("Run %s could not ask for a slot of %s: %s", self._run_id, pool, error)
            return True

    def free(self, but: Collection[str] = ()) -> None:
        """Give slots back, and places in the queues for them.

        Args:
            but: Steps that keep theirs: they start in this run, find their slots claimed or go on
                waiting for them, and free them at their ends.
        """
        freed, self._asked = self._asked.difference(but), set()
        for step_key in sorted(freed):
            # Broad on purpose: the sensor frees the slots of runs that have ended.
            try:
                self._storage.free_concurrency_slot_for_step(self._run_id, step_key)
            except Exception as error:  # noqa: BLE001 - see above
                _logger.info("Run %s could not free a slot: %s", self._run_id, error)
