"""Errors where a change log does not match what a dataset or a drain knows of it."""

from __future__ import annotations

from datazone_dagster.errors import ConcurrentWriterError, StorageError


def missing_error(uri: str, source: str) -> StorageError:
    """Return the error for a change log that has to be there and is not."""
    return StorageError(
        f"There is no change log of source {source!r} at {uri}.",
        hint="The drain sensor makes it with the first change that it lands.",
    )


def overtaken_error(uri: str, head: int, landed: int) -> ConcurrentWriterError:
    """Return the error for a batch that another drain landed since this one opened the log."""
    return ConcurrentWriterError(
        f"Another drain landed batch {landed} in the change log at {uri}; this drain knows only "
        f"batch {head}.",
        safe="Nothing of this attempt counts; the other drain's batches are in the change log.",
        hint="This drain lost the commit race; the next one continues from the new state.",
    )


def truncated_error(
    uri: str, source: str, after_batch: int, truncated_through: int
) -> StorageError:
    """Return the error for batches that a reader needs but that were truncated."""
    new = (
        f"A new dataset can start from a snapshot: datazone-dagster resync {source} takes one. Its "
        "next run then starts at the announcement."
    )
    old = "Restore the newest copy of the dataset: this one ends before the changes that are left."
    return StorageError(
        f"The change log at {uri} no longer has batches {after_batch + 1} to {truncated_through}: "
        "they were removed after every dataset had applied them.",
        safe="Nothing was applied; a dataset without these batches would be incomplete.",
        hint=old if after_batch else new,
    )


def replaced_error(uri: str) -> ConcurrentWriterError:
    """Return the error for a change log that was replaced by an older one while it was read."""
    return ConcurrentWriterError(
        f"The change log at {uri} was removed or replaced by an older one while it was read.",
        safe="The chunks applied before are in the datasets, with their positions.",
        hint="Restore the newest change log: older ones end before those positions.",
    )


def other_scan_error(uri: str) -> ConcurrentWriterError:
    """Return the error for a snapshot that another process has moved on."""
    return ConcurrentWriterError(
        f"Another process has moved the snapshot in the change log at {uri} on.",
        safe="Nothing of this attempt counts; what the other process landed is in the change log.",
        hint="Let one process take the snapshot; this one continues from the new state.",
    )


def never_first_error(uri: str, attempts: int) -> ConcurrentWriterError:
    """Return the error for a commit that lost the race each time."""
    return ConcurrentWriterError(
        f"Other commits to the change log at {uri} came first {attempts} times in a row.",
        safe="Nothing of this attempt counts; the snapshot continues after its last commit.",
        hint="Check for a process that commits to this table without a pause.",
    )
