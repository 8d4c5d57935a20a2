"""Every change, and of it what the SQL names: the way of a function that looks at nothing itself.

A history, an append table and soft deletes need every change, and so does SQL that looks at several
at once. But a frame that nobody has read tells which images its SQL names: the others are neither
fetched nor decoded, nor do they count towards the size of a chunk. Whatever is out of the ordinary
(a record to be refused, an expression that fails) is left to the chunk with all its columns, which
keeps them for the quarantine.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from datazone_dagster.apply.bad_records import keyed
from datazone_dagster.apply.chunk import NOTHING_REFUSED, columns_with, facts_of
from datazone_dagster.apply.function import FunctionResult
from datazone_dagster.apply.read_latest import NotThisWayError, Prepared
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.errors import TransformError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.column_names import Log


def every_change(
    log: ChangeLogSnapshot,
    after_batch: int,
    through_batch: int,
    frames: Mapping[str, Frame],
    chunk_bytes: int,
    row_bytes: float,
) -> Prepared:
    """The next chunk of a range, with the columns that are needed.

    Args:
        log: The change log.
        after_batch: Where the range begins, exclusive. There are rows.
        through_batch: Where it ends, inclusive.
        frames: By output, what the function returned: unread.
        chunk_bytes: How much a chunk is, decoded, by the columns that are read.
        row_bytes: What the function's rows of one change take, as far as is known: a change
            counts no less.

    Raises:
        NotThisWayError: The chunk needs all columns.
        StorageError: The change log can't be read.
    """
    images = frozenset[str]().union(*(frame.images_needed for frame in frames.values()))
    chunk = next(
        log.chunks(
            after_batch,
            through_batch,
            chunk_bytes,
            columns=columns_with(images),
            count_unread=False,
            row_bytes=row_bytes,
        )
    )
    changes, refused = keyed(chunk.rows)
    if len(refused):
        raise NotThisWayError(chunk.last_batch, "they hold records that have no usable key.")
    rows: dict[str, pa.Table] = {}
    for output, frame in frames.items():
        try:
            rows[output] = frame.rows_of(changes)
        except TransformError as error:
            raise NotThisWayError(chunk.last_batch, error.what) from error
    # A merge needs none of the images any more, and memory may need their place.
    changes = changes.drop_columns(sorted(images - {Log.KEYS}))
    return Prepared(facts_of(chunk, changes), FunctionResult(changes, rows, NOTHING_REFUSED))
