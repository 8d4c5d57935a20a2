"""Matching of incoming calls with the faults of a plan."""

from __future__ import annotations

import threading
from typing import NamedTuple

from datazone_dagster.local.faults import ANY_OPERATION, LISTING_KINDS, Fault, FaultPlan


class CalledShard(NamedTuple):
    """Shard of a call: its id and its position in the creation order of its stream."""

    shard_id: str
    position: int


class FaultInjector:
    """Counts calls against a plan and logs the faults that occurred. Thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.set_plan(FaultPlan())

    def set_plan(self, plan: FaultPlan) -> None:
        """Start a plan with all counts at 0 and an empty log."""
        with self._lock:
            self._plan = plan
            self._calls = [0] * len(plan.faults)
            self._log: list[dict[str, object]] = []

    @property
    def armed(self) -> bool:
        """True if the plan contains any fault."""
        return bool(self._plan.faults)

    def log(self) -> list[dict[str, object]]:
        """Return the faults that occurred since the plan was set, in order."""
        with self._lock:
            return list(self._log)

    def strike(self, operation: str, shard: CalledShard | None, at: float) -> Fault | None:
        """Count a call and return the fault that strikes it, if any.

        Args:
            operation: Name of the operation.
            shard: Shard of the call, if it has one.
            at: Server time in seconds since 1970, for the log.
        """
        struck: Fault | None = None
        with self._lock:
            for index, fault in enumerate(self._plan.faults):
                if not _matches(fault, operation, shard):
                    continue
                self._calls[index] += 1
                if struck is None and fault.strikes(self._calls[index]):
                    struck = fault
                    self._log.append(
                        {
                            "fault": index,
                            "operation": operation,
                            "kind": fault.kind.value,
                            "shard": None if shard is None else shard.shard_id,
                            "call": self._calls[index],
                            "at": at,
                        }
                    )
        return struck


def _matches(fault: Fault, operation: str, shard: CalledShard | None) -> bool:
    if fault.operation not in (operation, ANY_OPERATION):
        return False
    if fault.shard is None or fault.kind in LISTING_KINDS:
        return True
    return shard is not None and fault.shard in (shard.shard_id, shard.position)
