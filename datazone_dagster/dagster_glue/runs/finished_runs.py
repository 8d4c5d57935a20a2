"""Runs that have ended, as Dagster's database says, while something of them still works.

The drain sensor marks a run as failed when it is silent. A step that a broker hands to a worker
after that, and the process that waits for such a step, learn it from here.
"""

from __future__ import annotations

from dagster import DagsterInstance, Failure


def is_over(instance: DagsterInstance, run_id: str) -> bool:
    """Return whether a run has succeeded, failed or was canceled."""
    run = instance.get_run_by_id(run_id)
    return run is not None and run.is_finished


def refuse_finished_run(instance: DagsterInstance, run_id: str) -> None:
    """Stop a step before it reads or writes anything, if its run has ended.

    Raises:
        Failure: The run has ended. The step is not tried again.
    """
    if is_over(instance, run_id):
        raise Failure(
            "This run had ended before its step began, which a worker has taken late. Nothing was "
            "read or written. Nothing is lost: the next run applies the changes.",
            allow_retries=False,
        )
