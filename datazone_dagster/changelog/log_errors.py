"""What can be wrong between the head of a change log and those who know of an earlier one."""

from __future__ import annotations

from datazone_dagster.errors import ConcurrentWriterError, StorageError


def check_head(head: int, position: int) -> None:
    """A position past the head means that the change log was replaced under a dataset.

    Raises:
        ConcurrentWriterError: `position` lies past the head.
    """
    if position > head:
        raise ConcurrentWriterError(
            f"A dataset has applied batch {position}, but its change log ends at {head}.",
            safe="Nothing was changed.",
            hint="The change log was removed or restored from an older copy: restore the "
            "newest one, or rebuild the dataset.",
        )


def overtaken_error(uri: str, head: int, landed: int) -> ConcurrentWriterError:
    """Another drain landed a batch since this one has looked."""
    return ConcurrentWriterError(
        f"Another drain landed batch {landed} in the change log at {uri}, this one knows of "
        f"batch {head}.",
        safe="Nothing of this attempt counts; the other drain's work stands.",
        hint="This one gives way and goes on from the new state next time.",
    )


def truncated_error(uri: str, after_batch: int, forgotten: int) -> StorageError:
    """Batches that somebody needs are gone for good."""
    return StorageError(
        f"The change log at {uri} has no batches {after_batch + 1} to {forgotten} any more: they "
        "were removed after every dataset had applied them.",
        safe="Nothing was applied; a dataset without them would be incomplete.",
        hint="A new dataset can't begin on a source that has forgotten changes: only those "
        "datasets that were there have them.",
    )
