"""Preparation of chunks: from the change log to rows that are ready to be committed."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from datazone_dagster.api import Transform
from datazone_dagster.apply.change_scan import FullChunkNeededError
from datazone_dagster.apply.chunk import NOTHING_REFUSED, FunctionResult, Prepared, ReadReport
from datazone_dagster.apply.chunk_size import ChunkSizes
from datazone_dagster.apply.expectations import Expectations
from datazone_dagster.apply.first_changes import FirstChanges
from datazone_dagster.apply.full_scan import FullChunk
from datazone_dagster.apply.function import Function
from datazone_dagster.apply.function_errors import failure_of
from datazone_dagster.apply.joined_chunks import JoinedChunks
from datazone_dagster.apply.latest_parts import IMAGES, LatestPart, read_latest_in_parts
from datazone_dagster.apply.parts import PartResult
from datazone_dagster.apply.path_mismatches import view_types_of
from datazone_dagster.apply.row_wise_check import CHECKED_CHANGES
from datazone_dagster.apply.row_wise_promise import Promise
from datazone_dagster.apply.selective_read import TooMuchError, read_selected
from datazone_dagster.apply.trial_call import trial_call, unread
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.errors import TransformError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.query_session import FailingValueError
from datazone_dagster.model.column_names import HIDDEN
from datazone_dagster.model.quarantine_policy import Failure, is_quarantined
from datazone_dagster.rows.partition_values import has_refused

WORTH_A_LOOK_RECORDS = 20_000
"""Backlog from which on the function is called on a few changes before the first chunk is read. A
shorter backlog is one chunk at most, and shows by itself what the function needs."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """A chunk that is prepared, but does not fit to the one before it."""

    after_batch: int
    outputs: list[str]
    prepared: Prepared
    read: ReadReport


class Preparation:
    """Passes the chunks of one run through the function, each by the cheapest exact path.

    A function that returns unread frames is served by the selective reader. One that returns
    frames of `items()` gets the latest changes only, once a look at a few changes, or a chunk, has
    shown that these suffice. A function that reads its chunk itself, a chunk with exceptions, and
    the quarantine are served by the full scan.
    """

    def __init__(
        self,
        transform: Transform,
        function: Function,
        sizes: ChunkSizes,
        partition_by: Mapping[str, Sequence[str]],
        expectations: Expectations,
        logger: logging.Logger,
    ) -> None:
        self._transform = transform
        self._function = function
        self._sizes = sizes
        self._partition_by = partition_by
        self._expectations = expectations
        self._logger = logger
        self._full_through_batch = 0
        self._images_of_items: frozenset[str] | None = None
        self._may_look = all(map(self._holds_latest_only, transform.outputs))
        self._promise = Promise(transform, function)
        self._reads_in_parts = False
        self._ready: _Ready | None = None

    def next_chunk(
        self,
        log: ChangeLogSnapshot,
        after_batch: int,
        through_batch: int,
        outputs: Iterable[str],
        lookups: Mapping[str, pa.Table],
        *,
        every_column: bool,
    ) -> Prepared:
        """Prepare the next chunk of a range, for the datasets whose position is its start.

        Chunks with every change are joined where their datasets hold the latest changes only.

        Args:
            log: The change log.
            after_batch: Start of the range, exclusive. The range has changes.
            through_batch: End of the range, inclusive.
            outputs: Outputs to prepare.
            lookups: Lookup tables by parameter.
            every_column: Whether prepared changes have all columns, because a dataset may
                quarantine them.

        Raises:
            TransformError: The function failed, or its result can't be applied.
            StorageError: The change log can't be read.
        """
        rest = (through_batch, list(outputs), lookups)
        function, started_seconds = self._function, time.monotonic()
        joined = JoinedChunks(*self._one_or_ready(log, after_batch, *rest, every_column))
        while (
            joined.takes_more
            and self._images_of_items is None
            and all(map(self._holds_latest_only, rest[1]))
            and log.has_rows(joined.last_batch, through_batch)
            and joined.retains_less_than(
                self._sizes.joined_bytes(time.monotonic() - started_seconds)
            )
        ):
            before = function.attributes, function.reads.paths
            try:
                more, read = self._one_or_ready(log, joined.last_batch, *rest, False)
            except TransformError:  # it comes again with a chunk of its own
                function.attributes, function.reads.paths = before
                break
            if not joined.fits(more):
                self._ready = _Ready(joined.last_batch, rest[1], more, read)
                break
            joined.add(more, read)
        prepared, function.reads.report = joined.prepared()
        return prepared

    def _one_or_ready(
        self,
        log: ChangeLogSnapshot,
        after_batch: int,
        through_batch: int,
        outputs: list[str],
        lookups: Mapping[str, pa.Table],
        every_column: bool,
    ) -> tuple[Prepared, ReadReport]:
        """Return the next chunk, and what the frames found in it; a chunk is prepared once."""
        ready, self._ready = self._ready, None
        if (
            ready is not None
            and (ready.after_batch, ready.outputs) == (after_batch, outputs)
            and ready.prepared.facts.last_batch <= through_batch
            and not every_column
        ):
            return ready.prepared, ready.read
        rest = (through_batch, outputs, lookups)
        prepared = self._one_chunk(log, after_batch, *rest, every_column=every_column)
        return prepared, self._function.reads.report

    def _one_chunk(
        self,
        log: ChangeLogSnapshot,
        after_batch: int,
        through_batch: int,
        outputs: list[str],
        lookups: Mapping[str, pa.Table],
        *,
        every_column: bool,
    ) -> Prepared:
        """Prepare the next chunk of a range, as large as memory allows; see `next_chunk`."""
        full = FullChunk(log, after_batch, through_batch, self._sizes.full_bytes)
        if self._reads_in_parts:
            return self._full(full, None, outputs, lookups, every_column=True)
        if self._may_look and not every_column:
            self._look(log, after_batch, through_batch, outputs, lookups)
        if self._images_of_items is not None and not every_column:
            if after_batch >= self._full_through_batch:
                try:
                    return self._latest(log, after_batch, through_batch, outputs, lookups)
                except FullChunkNeededError as error:
                    self._read_in_full(after_batch, error)
            every_column = True
        try:
            returned = self._function.returned(full, lookups)
        except TransformError as error:
            failure = failure_of(error)
            if failure is Failure.MEMORY:
                self._reads_in_parts = True
            elif not (
                is_quarantined(failure, self._transform.on_error)
                or isinstance(error, FailingValueError)
            ):
                raise
            return self._full(full, None, outputs, lookups, every_column=True)
        frames = None if every_column else unread({output: returned[output] for output in outputs})
        if frames is not None:
            if after_batch >= self._full_through_batch:
                try:
                    return self._selected(log, after_batch, through_batch, frames)
                except FullChunkNeededError as error:
                    self._read_in_full(after_batch, error)
            every_column = True
        return self._full(full, returned, outputs, lookups, every_column=every_column)

    def _look(
        self,
        log: ChangeLogSnapshot,
        after_batch: int,
        through_batch: int,
        outputs: Sequence[str],
        lookups: Mapping[str, pa.Table],
    ) -> None:
        """Call the function on a few changes, to learn what the chunks need, and check it.

        Raises:
            ResultError: The function is not row-wise, as the transform says.
        """
        declared = self._transform.row_wise
        waiting = log.record_count() - log.record_count(after_batch)
        if waiting < WORTH_A_LOOK_RECORDS and not declared:
            self._may_look = False
            return
        enough_keys = CHECKED_CHANGES if declared else 1
        first = FirstChanges(log, after_batch, through_batch, enough_keys)
        seen = trial_call(self._transform, self._function, first, self._promise, outputs, lookups)
        self._may_look = declared and seen is None
        if seen is not None and seen.images is not None:
            self._images_of_items = seen.images
            self._sizes.learn(seen.rows, seen.changes)

    def _read_in_full(self, after_batch: int, error: FullChunkNeededError) -> None:
        """Read the batches of an attempt in full from now on."""
        self._full_through_batch = error.through_batch
        self._logger.info(
            "Batches %d to %d are read in full: %s",
            after_batch + 1,
            error.through_batch,
            error.reason,
        )

    def _latest(
        self,
        log: ChangeLogSnapshot,
        after_batch: int,
        through_batch: int,
        outputs: Sequence[str],
        lookups: Mapping[str, pa.Table],
    ) -> Prepared:
        """Prepare the chunk by calling the function on the latest changes, some thousand at a time.

        Raises:
            FullChunkNeededError: There are exceptions, or the function needs every change.
            ResultError: The function is not row-wise, as the transform says.
        """
        function, promise = self._function, self._promise
        before = function.attributes, function.reads.paths

        def evaluate(part: LatestPart) -> PartResult:
            returned = function.returned(part, lookups)
            if not (function.is_by_change or self._transform.row_wise):
                self._images_of_items = None
                raise FullChunkNeededError(part.last_batch, "the function needs every change.")
            rows = function.read(outputs, returned)
            types = view_types_of(part.changes)
            problem = function.reads.problem(part.changes, rows, types)
            if problem is None and self._are_some_refused(part.changes, rows):
                problem = "some rows are refused."
            if problem is not None:
                raise FullChunkNeededError(part.last_batch, problem)
            promise.add(part, rows)
            result = FunctionResult(part.changes.select(HIDDEN), rows, NOTHING_REFUSED)
            return PartResult(result, function.reads.report)

        bounds = self._sizes.bounds(reads_later=True, latest_only=True)
        while True:
            promise.begin()
            try:
                prepared, read = read_latest_in_parts(
                    log,
                    after_batch,
                    through_batch,
                    bounds,
                    self._images_of_items or frozenset(),
                    evaluate,
                    lambda: function.attributes,
                )
                promise.check(outputs, lookups)
                break
            except TooMuchError as error:
                function.attributes, function.reads.paths = before
                self._sizes.expect(error.row_bytes)
                bounds = bounds.after_too_much(error.row_bytes)
            except FullChunkNeededError:
                function.attributes, function.reads.paths = before
                if self._transform.row_wise:  # perhaps some changes need further images
                    self._images_of_items = IMAGES
                raise
        function.reads.report = read
        self._sizes.learn(prepared.result.rows, len(prepared.result.changes))
        return prepared

    def _selected(
        self,
        log: ChangeLogSnapshot,
        after_batch: int,
        through_batch: int,
        frames: Mapping[str, Frame],
    ) -> Prepared:
        """Prepare the chunk from the changes and images that the frames' SQL needs."""
        latest_only = all(map(self._only_latest_count, frames, frames.values()))
        reads_later = all(frame.is_row_wise for frame in frames.values())
        bounds = self._sizes.bounds(reads_later=reads_later, latest_only=latest_only)
        while True:
            try:
                prepared = read_selected(
                    log, after_batch, through_batch, frames, bounds, latest_only=latest_only
                )
                break
            except TooMuchError as error:
                self._sizes.expect(error.row_bytes)
                bounds = bounds.after_too_much(error.row_bytes)
        result = prepared.result
        try:
            rows = self._function.read(result.rows, result.rows)
        except TransformError as error:
            raise FullChunkNeededError(prepared.facts.last_batch, error.what) from error
        if self._are_some_refused(result.changes, rows):
            raise FullChunkNeededError(prepared.facts.last_batch, "some rows are refused.")
        problem = self._function.reads.problem(result.changes, rows, prepared.view_types)
        if problem is not None:
            raise FullChunkNeededError(prepared.facts.last_batch, problem)
        self._sizes.learn(rows, len(result.changes))
        result = replace(result, rows=rows)
        return replace(prepared, result=result, is_clean=not latest_only)

    def _are_some_refused(self, changes: pa.Table, rows: Mapping[str, pa.Table]) -> bool:
        """Return whether a dataset refuses rows, so that their changes need all columns."""
        return any(
            has_refused(rows[output], self._partition_by[output])
            or self._expectations.refuses_some(output, changes, rows[output])
            for output in rows
        )

    def _only_latest_count(self, output: str, frame: Frame) -> bool:
        """Return whether superseded changes leave no trace in a dataset.

        They do leave one in a history, in an append table, in the image of a soft delete, and
        before a delete that the dataset ignores.
        """
        return frame.is_row_wise and self._holds_latest_only(output)

    def _holds_latest_only(self, output: str) -> bool:
        dataset = self._transform.outputs[output]
        return (
            dataset.mode == "merge" and dataset.deletes == "hard" and dataset.ttl_deletes == "apply"
        )

    def _full(
        self,
        full: FullChunk,
        returned: Mapping[str, object] | None,
        outputs: list[str],
        lookups: Mapping[str, pa.Table],
        *,
        every_column: bool,
    ) -> Prepared:
        """Prepare every change of the chunk.

        Args:
            full: The chunk.
            returned: The function's return values for the chunk, if it was called.
            outputs: Outputs to prepare.
            lookups: Lookup tables by parameter.
            every_column: Whether changes may be quarantined, so that they need all columns. If
                not, the columns that the function requested suffice as long as nothing fails.
        """
        if returned is not None and not every_column:
            try:
                rows = self._function.read(outputs, returned)
            except TransformError:
                pass  # evaluated below, which quarantines changes or says which ones fail
            else:
                result = FunctionResult(full.changes_with(frozenset()), rows, full.refused)
                types = view_types_of(result.changes)
                problem = self._function.reads.problem(result.changes, rows, types)
                if problem is None and not self._are_some_refused(result.changes, rows):
                    self._learn_from(full.images_read, rows, len(result.changes))
                    return Prepared(full.facts(), result, is_clean=not len(full.refused))
        result = self._function.evaluate(outputs, full.changes, lookups, full.location, returned)
        refused = pa.concat_tables([full.refused, result.refused])
        return Prepared(full.facts(), replace(result, refused=refused))

    def _learn_from(
        self, images: frozenset[str], rows: Mapping[str, pa.Table], changes: int
    ) -> None:
        """Decide whether the next chunks need the latest changes only, and measure the rows."""
        if self._function.is_by_change and all(
            map(self._holds_latest_only, self._transform.outputs)
        ):
            self._images_of_items = images
            self._sizes.learn(rows, changes)
