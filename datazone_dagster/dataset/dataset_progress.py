"""Marks in a dataset's Delta log: how far it is, and what a run has to notice before it commits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from datazone_dagster.dataset.bucket_positions import (
    applied_batches,
    apply_app_ids,
    marks_of,
    other_sources,
)
from datazone_dagster.dataset.properties import (
    SCAN,
    erasures_of,
    generation_of,
    property_of,
)
from datazone_dagster.dataset.restored import version_of_rows
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.errors import ConcurrentWriterError, SourceMismatchError, StorageError
from datazone_dagster.model.key_bucket import (
    WHOLE,
    Ahead,
    KeyBucket,
    applied_through,
    parts_ahead,
)


class Progress(NamedTuple):
    """Position of a dataset, how often keys were erased from it, and how often it was rebuilt.

    `ahead` has the parts of a bucket of which more is applied: the number of buckets was larger.
    """

    position: int = 0
    erasures: int = 0
    generation: int = 0
    ahead: Ahead = ()

    def moved_to(self, position: int) -> Progress:
        """Return the progress after a commit of this position."""
        ahead = tuple(part for part in self.ahead if part[1] > position)
        return self._replace(position=position, ahead=ahead)


def progress_of(table: Snapshot, source: str, bucket: KeyBucket = WHOLE) -> Progress:
    """Return the progress of a dataset of this source, or of one of its buckets.

    Raises:
        SourceMismatchError: Changes of another source make the dataset.
        StorageError: Scans of the table make the dataset: it has no position in a stream. Or its
            table was restored, and the position of the rows is not known.
    """
    require_changes(table, source)
    batches = applied_batches(table, source)
    return Progress(
        applied_through(batches, bucket),
        erasures_of(table, source),
        generation_of(table, source),
        parts_ahead(batches, bucket),
    )


def require_not_restored(table: Snapshot, source: str) -> None:
    """Check that the rows are those of the last commit of a run.

    Raises:
        ConcurrentWriterError: The table was restored since: a run has to come first.
        StorageError: As in `progress_of`.
    """
    ids = apply_app_ids(table, source)
    if any(version_of_rows(table, source, app_id) is not table for app_id in ids):
        raise ConcurrentWriterError(
            f"The dataset at {table.store.uri} was restored to an older version, and no run has "
            "applied the changes since then yet.",
            safe="Nothing of this attempt was written.",
            hint="Let the next run of its transform finish, then repeat.",
        )


def require_progress(
    table: Snapshot,
    source: str,
    expected: Progress,
    bucket: KeyBucket = WHOLE,
    empty_through: int = 0,
) -> None:
    """Check that a dataset, or a bucket of it, is where a run left it.

    Args:
        table: The dataset's table.
        source: Its source.
        expected: Progress that the run knows.
        bucket: Bucket of the run.
        empty_through: Batch through which the run has seen no change since that progress: a run of
            another bucket may have moved the position as far.

    Raises:
        ConcurrentWriterError: Another run has applied changes, or keys were erased.
    """
    found = progress_of(table, source, bucket)
    position = found.position
    if expected.position < position <= empty_through:
        expected = expected.moved_to(position)
    if position != expected.position:
        raise ConcurrentWriterError(
            f"The dataset at {table.store.uri} is at batch {position}, not at "
            f"{expected.position}: another run has applied changes meanwhile.",
            safe="Nothing of this attempt was written; the other run's commit is in effect.",
        )
    if found.ahead != expected.ahead:
        raise ConcurrentWriterError(
            f"The dataset at {table.store.uri}: a run of a former number of buckets has applied "
            "changes meanwhile.",
            safe="Nothing of this attempt was written; the other run's commit is in effect.",
        )
    require_erasures(table, source, expected.erasures)
    if generation_of(table, source) != expected.generation:
        raise ConcurrentWriterError(
            f"The dataset at {table.store.uri} was rebuilt meanwhile.",
            safe="Nothing of this attempt was written; the rebuilt rows are in effect.",
            hint="The next run continues from the rebuilt rows.",
        )


def require_marks(
    table: Snapshot, source: str, marks: Mapping[str, int], bucket: KeyBucket = WHOLE
) -> None:
    """Check that the marks of `marks_of` are as they were.

    Raises:
        ConcurrentWriterError: A commit of another process changed them.
    """
    if marks_of(table, source, bucket) != marks:
        raise ConcurrentWriterError(
            f"The dataset at {table.store.uri}: another run has applied changes meanwhile.",
            safe="No row of this attempt was written; the other run's commit is in effect.",
            hint="This run lost the commit race; the next one continues from the new state.",
        )


def require_changes(table: Snapshot, source: str) -> None:
    """Check that changes of this source's stream make the dataset.

    Raises:
        SourceMismatchError: Changes of another source make it.
        StorageError: Scans of the table make it.
    """
    others = other_sources(table, source)
    if others and not apply_app_ids(table, source):
        raise SourceMismatchError(
            f"The dataset at {table.store.uri} is made from the changes of source "
            f"{' and '.join(map(repr, others))}, but its transform reads source {source!r} now.",
            safe="Nothing was written: versions of two streams can't be compared.",
            hint="Give the dataset a new id, or read the source under its former name again: "
            f"DynamoDBSource(..., name={others[0]!r}).",
        )
    if property_of(SCAN, generation_of(table, source)) in table.configuration:
        raise StorageError(
            f"The dataset at {table.store.uri} is made by scans of its table, but its source "
            f"{source!r} has stream_enabled=True now.",
            safe="Nothing was written: changes of a stream are not mixed with rows of a scan.",
            hint="Give the dataset a new id, or set stream_enabled=False again.",
        )


def require_erasures(table: Snapshot, source: str, erasures: int) -> None:
    """Check that no key was erased since this count was read.

    Raises:
        ConcurrentWriterError: Keys were erased: what was read before may have them.
    """
    if erasures_of(table, source) != erasures:
        raise ConcurrentWriterError(
            f"The dataset at {table.store.uri}: keys were erased after the changes were read.",
            safe="Nothing of this attempt was written; the next one reads the changes again.",
        )
