"""Upkeep of the change log and the checkpoint table, by the drain, after it has landed."""

from __future__ import annotations

import logging
import time

from datazone_dagster.changelog.checkpoints import CheckpointSnapshot
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.drain.process_state import ProcessState
from datazone_dagster.errors import ConcurrentWriterError, StorageError
from datazone_dagster.process.shutdown import shutdown_requested

CLEAN_UP_EVERY_SECONDS = 3600.0
"""When replaced files are deleted, by each process that drains."""


def maintain_once(
    log: ChangeLogSnapshot,
    saved: CheckpointSnapshot,
    kept: ProcessState,
    deadline_seconds: float,
    logger: logging.Logger,
) -> bool:
    """One piece of upkeep always, more if time is left. It never fails a drain.

    Returns:
        Whether it changed a table, or tried to: they are not as they were opened.
    """
    touched = False
    try:
        while not shutdown_requested() and log.maintain_once():
            touched = True
            if time.monotonic() >= deadline_seconds:
                break
        if time.monotonic() >= kept.clean_up_at_seconds:
            kept.clean_up_at_seconds = time.monotonic() + CLEAN_UP_EVERY_SECONDS
            touched = True
            log.delete_orphan_files()
            saved.delete_orphan_files()
    except ConcurrentWriterError as error:
        logger.info("Upkeep of the change log gives way: %s", error)
        return True
    except StorageError as error:
        logger.warning("Upkeep of the change log is put off: %s", error)
        return True
    return touched
