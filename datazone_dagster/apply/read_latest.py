"""Collapse first, parse after: the way of a chunk whose function looks at one change at a time.

Where the rows of a change depend on that change alone, only the latest change of each key
counts in a merge. So keys and versions are read first, of as many batches as memory and the
chunk's size allow; then the images that the function's SQL names, of the latest changes only.
The result is what the whole chunk would have given. Whatever is out of the ordinary (a record
to be refused, an expression that fails) is left to the plain way, which is exact about it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.apply.chunk import CHANGES_SCHEMA, NOTHING_REFUSED, ChunkFacts
from datazone_dagster.apply.function import FunctionResult
from datazone_dagster.apply.image_views import ROW, ROW_GROUP, VIEWS_SCHEMA, Images, beside
from datazone_dagster.changelog.parts import RowGroup, RowGroups
from datazone_dagster.dataset.latest import only_latest
from datazone_dagster.errors import TransformError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.query_session import Coming
from datazone_dagster.items.keys import key_column
from datazone_dagster.model.column_names import EVENT_TIME, KEY, VERSION, Log

CHANGE_COLUMNS = (
    Log.BATCH,
    Log.KEYS,
    Log.VERSION,
    Log.EVENT_NAME,
    Log.EVENT_TIME,
    Log.SIZE_BYTES,
    Log.USER_TYPE,
    Log.USER_PRINCIPAL,
    Log.REASON,
)
"""What says which change of a key is the latest, and what it does."""

_SMALL_COLUMNS = (Log.EVENT_ID, Log.REGION, Log.VIEW_TYPE)
_COLLAPSE_BYTES = 32 << 20
_NEARLY = 0.75
_SAMPLE_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one chunk may be.

    Args:
        decoded_bytes: Of the changes that it covers; it ends with the batch that passes them.
        retained_bytes: What stays in memory until the commit, a keyed change per key and its rows,
            estimated beforehand; the chunk ends with the batch that passes them.
        most_bytes: Of the rows as they turn out to be, unless they are of a single batch.
        row_bytes: What the function's rows of one change take, as far as is known; None: the
            size of the change.
    """

    decoded_bytes: int
    retained_bytes: int
    most_bytes: int
    row_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A chunk that is ready to go into its datasets.

    Args:
        facts: What it covers.
        taken: What the function made of it.
        collapsed: Whether changes are left out that a later one of the chunk replaces, and all
            columns but what a merge needs.
    """

    facts: ChunkFacts
    taken: FunctionResult
    collapsed: bool = False


class NotThisWayError(Exception):
    """The batches up to `through_batch` have to go the plain way; nothing was written."""

    def __init__(self, through_batch: int, reason: str) -> None:
        super().__init__(reason)
        self.through_batch = through_batch
        self.reason = reason


class TooMuchError(Exception):
    """The function's rows take more memory than was expected: `row_bytes` of a change."""

    def __init__(self, row_bytes: float) -> None:
        super().__init__(row_bytes)
        self.row_bytes = row_bytes


def prepare(parts: RowGroups, frames: Mapping[str, Frame], bounds: Bounds) -> Prepared:
    """The next chunk, by way of its latest changes.

    Args:
        parts: The change log from where the datasets stand. There are rows.
        frames: By output, what the function returned: row-wise and unread.
        bounds: How much it may be; at least one batch.

    Raises:
        NotThisWayError: The chunk needs the plain way.
        TooMuchError: More than one batch, and too much: to be tried again with what was learned.
        OSError: The store failed.
    """
    scan = _Scan(bounds, lambda: _sampled_row_bytes(parts, frames))
    scan.run(parts)
    facts = scan.facts()
    latest = _canonical(scan.latest(), facts)
    images = Images(parts, scan.parts, latest, _columns_of(frames))
    most_bytes = bounds.most_bytes if facts.first_batch < facts.last_batch else None
    try:
        rows = _rows(frames, images, most_bytes)
    except TransformError as error:
        raise NotThisWayError(facts.last_batch, error.what) from error
    taken = FunctionResult(
        latest.drop_columns([ROW_GROUP, ROW]),
        rows,
        refused=NOTHING_REFUSED,
    )
    return Prepared(facts, taken, collapsed=True)


def _rows(
    frames: Mapping[str, Frame], images: Images, most_bytes: int | None
) -> dict[str, pa.Table]:
    """What the functions' SQL gives of the changes, by output.

    One query runs over all of them while they are read; several take them in turns, so that
    each image is read once.

    Raises:
        TooMuchError: More than this.
        TransformError: A query fails.
        OSError: The store failed.
    """
    kept = 0

    def fits(more_bytes: int) -> bool:
        nonlocal kept
        kept += more_bytes
        return most_bytes is None or kept <= most_bytes

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
        raise TooMuchError(kept / images.given)
    return {output: pa.concat_tables(tables) for output, tables in rows.items()}


def _sampled_row_bytes(parts: RowGroups, frames: Mapping[str, Frame]) -> float | None:
    """What the function's rows of one change take, by the first changes; None: it fails there."""
    part = next(iter(parts))
    keyed_changes = parts.read(part, CHANGE_COLUMNS).slice(0, _SAMPLE_ROWS)
    if not len(keyed_changes):
        return None
    found = parts.read(part, _columns_of(frames)).slice(0, _SAMPLE_ROWS)
    keyed_changes = keyed_changes.append_column(KEY, keyed_changes[Log.KEYS])
    keyed_changes = keyed_changes.append_column(VERSION, keyed_changes[Log.VERSION])
    changes = beside(
        keyed_changes.append_column(EVENT_TIME, keyed_changes[Log.EVENT_TIME]),
        found,
        CHANGES_SCHEMA,
    )
    try:
        row_bytes: int = sum(frame.rows_of(changes).nbytes for frame in frames.values())
    except TransformError:
        return None
    return row_bytes / len(changes)


@dataclass
class _Scan:
    """What was read of keys and versions so far; only the latest change of each key is kept.

    Args:
        bounds: Where it ends.
        sampled_row_bytes: Tells `Bounds.row_bytes` by parsing some changes; None: it can't.
    """

    bounds: Bounds
    sampled_row_bytes: Callable[[], float | None]
    parts: list[RowGroup] = field(default_factory=list)
    records: int = 0
    record_bytes: int = 0
    decoded_bytes: int = 0
    first_batch: int = 0
    last_batch: int = 0
    _times: list[datetime] = field(default_factory=list)
    _kept: pa.Table | None = None
    _pending: list[pa.Table] = field(default_factory=list)
    _pending_bytes: int = 0
    _existing_rows: int = 0

    def run(self, parts: RowGroups) -> None:
        """Read on until the bounds are reached and the last batch is whole."""
        full = False
        for part in parts:
            rows = parts.read(part, CHANGE_COLUMNS)
            full = full or self._is_full(part)
            of_batch = rows.filter(pc.equal(rows[Log.BATCH], self.last_batch)) if full else rows
            if len(of_batch):
                self._take(part, of_batch)
            if len(of_batch) < len(rows):
                return

    def latest(self) -> pa.Table:
        """The latest change of each key."""
        tables = [*([self._kept] if self._kept is not None else []), *self._pending]
        both = pa.concat_tables(tables)
        self._kept = only_latest(both, both[Log.KEYS], both[Log.VERSION])
        self._pending, self._pending_bytes, self._existing_rows = [], 0, len(self._kept)
        return self._kept

    def facts(self) -> ChunkFacts:
        """What was read, all changes counted."""
        return ChunkFacts(
            self.first_batch,
            self.last_batch,
            self.records,
            self.record_bytes,
            self.decoded_bytes,
            min(self._times, default=None),
            max(self._times, default=None),
        )

    def _take(self, part: RowGroup, rows: pa.Table) -> None:
        batches = rows[Log.BATCH]
        self.first_batch = self.first_batch or int(batches[0].as_py())
        self.last_batch = int(batches[-1].as_py())
        if rows[Log.REASON].null_count < len(rows) or rows[Log.KEYS].null_count:
            raise NotThisWayError(self.last_batch, "they hold records without keys.")
        span = pc.min_max(rows[Log.EVENT_TIME]).as_py()
        self._times = [time for time in (*self._times, span["min"], span["max"]) if time]
        self._times = [min(self._times), max(self._times)] if self._times else []
        self.records += len(rows)
        self.record_bytes += cast("int | None", pc.sum(rows[Log.SIZE_BYTES]).as_py()) or 0
        self.decoded_bytes += part.decoded_bytes * len(rows) // part.rows
        number = pa.repeat(pa.scalar(len(self.parts), pa.int32()), len(rows))
        place = pc.subtract(pc.cumulative_sum(pa.repeat(pa.scalar(1), len(rows))), 1)
        self.parts.append(part)
        keyed_changes = rows.drop_columns([Log.REASON]).append_column(ROW_GROUP, number)
        keyed_changes = keyed_changes.append_column(ROW, place)
        self._pending.append(keyed_changes)
        self._pending_bytes += keyed_changes.nbytes
        self._existing_rows += len(keyed_changes)
        if self._pending_bytes > max(_COLLAPSE_BYTES, self._latest_bytes()):
            self.latest()

    def _is_full(self, part: RowGroup) -> bool:
        if not self.records:
            return False
        bounds, change_bytes = self.bounds, part.decoded_bytes / part.rows
        if self._retained_bytes(bounds.row_bytes or change_bytes) >= bounds.retained_bytes:
            if bounds.row_bytes is None:
                row_bytes = self.sampled_row_bytes()
                self.bounds = bounds = replace(bounds, row_bytes=row_bytes or change_bytes)
            self.latest()
            # Not up to the bound, or near it every part would collapse everything once more.
            if (
                self._retained_bytes(bounds.row_bytes or change_bytes)
                >= _NEARLY * bounds.retained_bytes
            ):
                return True
        return self.decoded_bytes >= bounds.decoded_bytes

    def _retained_bytes(self, row_bytes: float) -> int:
        return self._latest_bytes() + self._pending_bytes + int(self._existing_rows * row_bytes)

    def _latest_bytes(self) -> int:
        return 0 if self._kept is None else int(self._kept.nbytes)


def _canonical(latest: pa.Table, facts: ChunkFacts) -> pa.Table:
    """The latest changes with their hidden columns: of texts that mean one key, one."""
    keys, failures = key_column(latest[Log.KEYS])
    if failures:
        raise NotThisWayError(facts.last_batch, "they hold keys that are none.")
    latest = latest.append_column(KEY, keys)
    latest = only_latest(latest, keys, latest[Log.VERSION])
    latest = latest.append_column(VERSION, latest[Log.VERSION])
    return latest.append_column(EVENT_TIME, latest[Log.EVENT_TIME])


def _columns_of(frames: Mapping[str, Frame]) -> list[str]:
    """What the functions' SQL reads beside the claims."""
    images = frozenset().union(*(frame.images_needed for frame in frames.values()))
    return [*sorted(images - {Log.KEYS}), *_SMALL_COLUMNS]
