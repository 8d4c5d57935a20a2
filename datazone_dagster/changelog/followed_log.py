"""The change log that a dataset follows: batches of another one have the same numbers."""

from __future__ import annotations

from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.errors import ConcurrentWriterError, SourceMismatchError

_NO_COPY = (
    "Restore the newest copy of the change log. If there is none, give the dataset a new id: its "
    "first run makes it of what the new log has."
)


def require_followed(log: ChangeLogSnapshot, dataset: str, position: int, made_from: str) -> None:
    """Check that a dataset was made from this change log, and not from one that is gone.

    Args:
        log: The change log as it is now.
        dataset: Location of the dataset.
        position: Position of the dataset.
        made_from: Id of the change log that its rows are from; empty if it is not known.

    Raises:
        SourceMismatchError: Its rows are from another change log.
        ConcurrentWriterError: Its position is past the head of this one.
    """
    if made_from not in ("", log.table_id):
        raise SourceMismatchError(
            f"The dataset at {dataset} was made from another change log than the one that is now "
            f"at {log.uri}: that one was removed, and made again. Batch {position} of the dataset "
            "is not a batch of this log.",
            safe="Nothing was changed: to go on would skip changes, or apply some twice.",
            hint=_NO_COPY,
        )
    if position > log.head:
        raise ConcurrentWriterError(
            f"The dataset at {dataset} has applied batch {position}, but its change log ends at "
            f"{log.head}.",
            safe="Nothing was changed.",
            hint=f"The change log was removed, or restored from an older copy. {_NO_COPY}",
        )
