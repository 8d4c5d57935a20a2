"""Upkeep of the change log and the checkpoint table, by the drain, after it has landed."""

from __future__ import annotations

import logging
import time

from datazone_dagster.changelog.checkpoints import CheckpointSnapshot
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.drain.process_state import Kept
from datazone_dagster.errors import ConcurrentWriterError, StorageError
from datazone_dagster.process.shutdown import told_to_end

TIDY_EVERY_SECONDS = 3600.0
"""When replaced files are deleted, by each process that drains."""


def keep_small(
    log: ChangeLogSnapshot,
    saved: CheckpointSnapshot,
    kept: Kept,
    deadline_seconds: float,
    logger: logging.Logger,
) -> bool:
    """One piece of upkeep always, more if time is left. It never fails a drain.

    Returns:
        Whether it changed a table, or tried to: they are not as they were opened.
    """
    touched = False
    try:
        while not told_to_end() and log.keep_small():
            touched = True
            if time.monotonic() >= deadline_seconds:
                break
        if time.monotonic() >= kept.tidy_at_seconds:
            kept.tidy_at_seconds = time.monotonic() + TIDY_EVERY_SECONDS
            touched = True
            log.delete_leftovers()
            saved.delete_leftovers()
    except ConcurrentWriterError as error:
        logger.info("Upkeep of the change log gives way: %s", error)
        return True
    except StorageError as error:
        logger.warning("Upkeep of the change log is put off: %s", error)
        return True
    return touched
