"""The reader of latest changes for functions that read their changes when they are called.

`items()` parses the images of its frame at once. If a function returned frames that compute the
rows of a change from that change alone, it is called with the latest change of each key only, some
thousand at a time: superseded images are neither read nor parsed. Whether the returned frames are
still such frames is checked after each call. The same goes for a function that its transform says
is row-wise, whatever it returns. Exceptions are left to the full scan.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import pyarrow as pa

from datazone_dagster.apply.change_scan import ChangeScan, FullChunkNeededError
from datazone_dagster.apply.chunk import (
    CHANGES_SCHEMA,
    NOTHING_REFUSED,
    FunctionResult,
    Prepared,
    ReadReport,
)
from datazone_dagster.apply.image_views import ROW, ROW_GROUP, Images
from datazone_dagster.apply.parts import MOST_PASSES, PartResult, fit_together, joined
from datazone_dagster.apply.selective_read import SMALL_COLUMNS, TooMuchError
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.delta import guarded
from datazone_dagster.errors import TransformError
from datazone_dagster.frame.query_session import Unread
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.size_policy import ChunkBounds

IMAGES = frozenset({Log.OLD_IMAGE, Log.NEW_IMAGE})
"""Columns of images."""


@dataclass(frozen=True, slots=True)
class LatestPart:
    """Some of a chunk's latest changes, to call the function on.

    Args:
        changes: Changes in `CHANGES_SCHEMA`; images that were not read are null.
        images: Columns of images that were read.
        first_batch: First batch of the chunk.
        last_batch: Last batch of the chunk.
    """

    changes: pa.Table
    images: frozenset[str]
    first_batch: int
    last_batch: int

    def unread(self) -> Unread:
        """Return the changes for a frame."""
        return Unread(CHANGES_SCHEMA, self.changes_with)

    def changes_with(self, columns: frozenset[str]) -> pa.Table:
        """Return the changes.

        Raises:
            FullChunkNeededError: One of the columns was not read.
        """
        if not columns & IMAGES <= self.images:
            raise FullChunkNeededError(self.last_batch, "the function reads further images.")
        return self.changes

    @property
    def location(self) -> str:
        """Range of batches in the change log, for errors."""
        return f"batches {self.first_batch} to {self.last_batch}"


def read_latest_in_parts(
    log: ChangeLogSnapshot,
    after_batch: int,
    through_batch: int,
    bounds: ChunkBounds,
    images: Collection[str],
    evaluate: Callable[[LatestPart], PartResult],
    state: Callable[[], object],
) -> tuple[Prepared, ReadReport]:
    """Prepare the next chunk of a range from the latest change of each key.

    Args:
        log: The change log.
        after_batch: Start of the range, exclusive. The range has rows.
        through_batch: End of the range, inclusive.
        bounds: Bounds of the chunk, which has at least one batch.
        images: Columns of images that the function is known to read.
        evaluate: Calls the function on some of the changes. It may return more columns or wider
            types, once it has seen later changes.

    Returns:
        The chunk, and what the function's frames found.

    Raises:
        FullChunkNeededError: The chunk has to be read in full.
        TooMuchError: The rows of several batches exceed `most_bytes`; try again with less.
        StorageError: The change log can't be read.
    """
    with (
        guarded(log.uri, "Reading changes"),
        log.row_groups(after_batch, through_batch) as row_groups,
    ):
        scan = ChangeScan(bounds, (), lambda: None, latest_only=True, reads_later=True)
        scan.run(row_groups)
        facts, latest = scan.facts(), scan.changes()
        read = IMAGES & set(images)
        columns = [*sorted(read), *SMALL_COLUMNS]
        several = facts.first_batch < facts.last_batch

        def parts() -> Iterator[LatestPart]:
            for part in Images(row_groups, scan.row_groups, latest, columns).pieces():
                yield LatestPart(part, read, facts.first_batch, facts.last_batch)

        try:
            most_bytes = bounds.most_bytes if several else None
            found = _evaluated(parts, evaluate, most_bytes, state)
        except TransformError as error:
            raise FullChunkNeededError(facts.last_batch, error.what) from error
    changes = latest.drop_columns([ROW_GROUP, ROW])
    result = FunctionResult(changes, found.result.rows, NOTHING_REFUSED)
    return Prepared(facts, result, reads_later=True), found.read


def _evaluated(
    parts: Callable[[], Iterator[LatestPart]],
    evaluate: Callable[[LatestPart], PartResult],
    most_bytes: int | None,
    state: Callable[[], object],
) -> PartResult:
    """Evaluate all parts, again if a later part has brought columns or wider types."""
    for _ in range(MOST_PASSES):
        before = state()
        done: list[PartResult] = []
        row_bytes = changes = 0
        for part in parts():
            done.append(evaluate(part))
            row_bytes += sum(rows.nbytes for rows in done[-1].result.rows.values())
            changes += len(done[-1].result.changes)
            if most_bytes is not None and row_bytes > most_bytes:
                raise TooMuchError(row_bytes / changes)
        if state() == before or fit_together(one.result for one in done):
            break
    return joined(done)
