"""Maintenance of the change log and the checkpoint table, done by the drain after it has landed."""

from __future__ import annotations

import logging
import time

from datazone_dagster.changelog.checkpoints import CheckpointSnapshot
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.drain.process_state import ProcessState
from datazone_dagster.errors import ConcurrentWriterError, StorageError
from datazone_dagster.process.shutdown import shutdown_requested

CLEAN_UP_EVERY_SECONDS = 3600.0
"""Interval at which each draining process deletes replaced files."""


def maintain_once(
    log: ChangeLogSnapshot,
    saved: CheckpointSnapshot,
    state: ProcessState,
    deadline_seconds: float,
    logger: logging.Logger,
) -> bool:
    """Do one piece of maintenance, and more if time is left; its failure never fails a drain.

    Returns:
        Whether a table was changed, or an attempt was made: the snapshots may be stale then.
    """
    touched = False
    try:
        while not shutdown_requested() and log.maintain_once():
            touched = True
            if time.monotonic() >= deadline_seconds:
                break
        touched = saved.maintain_once() or touched
        if time.monotonic() >= state.clean_up_at_seconds:
            state.clean_up_at_seconds = time.monotonic() + CLEAN_UP_EVERY_SECONDS
            touched = True
            log.delete_orphan_files()
            saved.delete_orphan_files()
    except ConcurrentWriterError as error:
        logger.info("Maintenance of the change log lost the commit race: %s", error)
        return True
    except StorageError as error:
        logger.warning("Maintenance of the change log is postponed: %s", error)
        return True
    return touched
