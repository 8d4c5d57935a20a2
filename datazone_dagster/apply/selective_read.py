"""The selective reader: a chunk with only the images that the function's SQL references.

An unread frame knows which images its SQL references: the others are neither fetched nor decoded.
Where the rows of a change depend on that change alone, images are read and parsed a row group at a
time, and memory holds the rows only. Where superseded changes leave no trace either, the reader
takes the latest change of each key only, and reads images of no others. Otherwise it takes every
change. The result equals that of the full scan. Exceptions (a record to be refused, an
expression that fails) are left to the full scan, which handles them exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from datazone_dagster.apply.change_scan import CHANGE_COLUMNS, ChangeScan, FullChunkNeededError
from datazone_dagster.apply.chunk import CHANGES_SCHEMA, NOTHING_REFUSED, FunctionResult, Prepared
from datazone_dagster.apply.image_views import ROW, ROW_GROUP, VIEWS_SCHEMA, Images, merged_columns
from datazone_dagster.apply.path_mismatches import VIEW_TYPE_COLUMNS, view_types_of
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.changelog.row_groups import RowGroup, RowGroups
from datazone_dagster.delta import guarded
from datazone_dagster.errors import TransformError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.query_session import Coming
from datazone_dagster.model.column_names import EVENT_TIME, KEY, VERSION, Log
from datazone_dagster.model.size_policy import ChunkBounds

SMALL_COLUMNS = (Log.EVENT_ID, Log.REGION, Log.VIEW_TYPE)
_SAMPLE_ROWS = 1024


class TooMuchError(Exception):
    """The function's rows take more memory than expected: `row_bytes` per change."""

    def __init__(self, row_bytes: float) -> None:
        super().__init__(row_bytes)
        self.row_bytes = row_bytes


def read_selected(
    log: ChangeLogSnapshot,
    after_batch: int,
    through_batch: int,
    frames: Mapping[str, Frame],
    bounds: ChunkBounds,
    *,
    latest_only: bool,
) -> Prepared:
    """Prepare the next chunk of a range from the changes and images that are needed.

    Args:
        log: The change log.
        after_batch: Start of the range, exclusive. The range has rows.
        through_batch: End of the range, inclusive.
        frames: Unread frames that the function returned, by output.
        bounds: Bounds of the chunk, which has at least one batch.
        latest_only: Whether only the latest change of each key counts; the frames are row-wise.

    Raises:
        FullChunkNeededError: The chunk has to be read in full.
        TooMuchError: The rows of several batches exceed `most_bytes`; try again with less.
        StorageError: The change log can't be read.
    """
    columns = _columns_of(frames)
    reads_later = all(frame.is_row_wise for frame in frames.values())
    with (
        guarded(log.uri, "Reading changes"),
        log.row_groups(after_batch, through_batch) as row_groups,
    ):
        scan = ChangeScan(
            bounds,
            columns,
            lambda: _sampled_row_bytes(row_groups, frames),
            latest_only,
            reads_later,
        )
        scan.run(row_groups)
        facts, changes = scan.facts(), scan.changes()
        for frame in frames.values():
            frame.field_names.notes.clear()  # those of the sample
        try:
            if reads_later:
                images = Images(row_groups, scan.row_groups, changes, columns)
                several = facts.first_batch < facts.last_batch
                rows = _rows_read_later(frames, images, bounds.most_bytes if several else None)
            else:
                rows = {output: frame.rows_of(changes) for output, frame in frames.items()}
        except TransformError as error:
            raise FullChunkNeededError(facts.last_batch, error.what) from error
        view_types = _view_types(row_groups, frames)
    # The merge does not need the images: free their memory.
    extra = {ROW_GROUP, ROW, Log.NEW_IMAGE, Log.OLD_IMAGE} & set(changes.column_names)
    result = FunctionResult(changes.drop_columns(sorted(extra)), rows, NOTHING_REFUSED)
    return Prepared(facts, result, reads_later=reads_later, view_types=view_types)


def _rows_read_later(
    frames: Mapping[str, Frame], images: Images, most_bytes: int | None
) -> dict[str, pa.Table]:
    """Return the rows of the frames' SQL for located changes, by output.

    A single query runs over all changes while they are read. Several queries take turns on each
    piece, so that each image is read once.

    Raises:
        TooMuchError: The rows exceed `most_bytes`.
        TransformError: A query fails.
        OSError: The store failed.
    """
    retained_bytes = 0

    def fits(more_bytes: int) -> bool:
        nonlocal retained_bytes
        retained_bytes += more_bytes
        return most_bytes is None or retained_bytes <= most_bytes

    rows: dict[str, list[pa.Table]] = {output: [] for output in frames}
    if len(frames) == 1:
        ((output, frame),) = frames.items()
        rows[output].append(frame.rows_of(Coming(VIEWS_SCHEMA, images.views(), fits)))
    else:
        for changes in images.pieces():
            for output, frame in frames.items():
                rows[output].append(frame.rows_of(changes))
                fits(rows[output][-1].nbytes)
            if not fits(0):
                break
    if not fits(0):
        raise TooMuchError(retained_bytes / images.yielded)
    return {output: pa.concat_tables(tables) for output, tables in rows.items()}


def _sampled_row_bytes(row_groups: RowGroups, frames: Mapping[str, Frame]) -> float | None:
    """Return the bytes of rows per change, measured on the first changes; None if that fails."""
    first = _first_rows(row_groups, CHANGE_COLUMNS)
    if first is None:
        return None
    row_group, keyed_changes = first[0], first[1].slice(0, _SAMPLE_ROWS)
    found = row_groups.read(row_group, _columns_of(frames)).slice(0, _SAMPLE_ROWS)
    keyed_changes = keyed_changes.append_column(KEY, keyed_changes[Log.KEYS])
    keyed_changes = keyed_changes.append_column(VERSION, keyed_changes[Log.VERSION])
    changes = merged_columns(
        keyed_changes.append_column(EVENT_TIME, keyed_changes[Log.EVENT_TIME]),
        found,
        CHANGES_SCHEMA,
    )
    try:
        row_bytes: int = sum(frame.rows_of(changes).nbytes for frame in frames.values())
    except TransformError:
        return None
    return row_bytes / len(changes)


def _view_types(row_groups: RowGroups, frames: Mapping[str, Frame]) -> frozenset[str]:
    """Return the view types of the stream's first changes, if a frame reads old images.

    A stream never changes its view type; the changes of another stream follow in other batches.
    """
    if not any(frame.field_names.reads_old_images for frame in frames.values()):
        return frozenset()
    for row_group in row_groups:
        types = view_types_of(row_groups.read(row_group, VIEW_TYPE_COLUMNS))
        if types:
            return types
    return frozenset()


def _first_rows(row_groups: RowGroups, columns: Sequence[str]) -> tuple[RowGroup, pa.Table] | None:
    """Return the first row group with rows, and those; one may have no key of the bucket."""
    for row_group in row_groups:
        rows = row_groups.read(row_group, columns)
        if len(rows):
            return row_group, rows
    return None


def _columns_of(frames: Mapping[str, Frame]) -> list[str]:
    """Return the columns that the frames' SQL reads besides `CHANGE_COLUMNS`."""
    images = frozenset().union(*(frame.images_needed for frame in frames.values()))
    return [*sorted(images - {Log.KEYS}), *SMALL_COLUMNS]
