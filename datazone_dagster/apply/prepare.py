"""From the change log to rows that are ready to be committed: one chunk at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from datazone_dagster.api import Transform
from datazone_dagster.apply.chunk import FullChunk
from datazone_dagster.apply.chunk_size import ChunkSizes
from datazone_dagster.apply.function import Function, FunctionResult
from datazone_dagster.apply.read_all import every_change
from datazone_dagster.apply.read_latest import (
    NotThisWayError,
    Prepared,
    TooMuchError,
    prepare,
)
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.delta import guarded
from datazone_dagster.errors import TransformError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.query_session import MalformedImageError


class Preparation:
    """Takes the chunks of one run through the function, each the cheapest exact way."""

    def __init__(
        self, transform: Transform, function: Function, sizes: ChunkSizes, logger: logging.Logger
    ) -> None:
        self._transform = transform
        self._function = function
        self._sizes = sizes
        self._logger = logger
        self._full_through_batch = 0

    def next_chunk(
        self,
        log: ChangeLogSnapshot,
        after_batch: int,
        through_batch: int,
        outputs: Iterable[str],
        lookups: Mapping[str, pa.Table],
        *,
        may_refuse: bool,
    ) -> Prepared:
        """The next chunk of a range that has changes, for the datasets that stand at its start.

        Args:
            log: The change log.
            after_batch: Where the range begins, exclusive.
            through_batch: Where it ends, inclusive.
            outputs: Of these datasets.
            lookups: By parameter.
            may_refuse: Whether a dataset may have to set changes aside once they are prepared:
                they come with all their columns then.

        Raises:
            TransformError: The function failed, or its result can't be applied.
            StorageError: The change log can't be read.
        """
        whole = FullChunk(log, after_batch, through_batch, self._sizes.full_bytes)
        outputs = list(outputs)
        try:
            returned = self._function.returned(whole, lookups)
        except TransformError as error:
            if self._transform.on_error == "fail" and not isinstance(error, MalformedImageError):
                raise
            return self._whole(whole, None, outputs, lookups)
        if may_refuse:
            return self._whole(whole, returned, outputs, lookups)
        frames = _unread({output: returned[output] for output in outputs})
        if frames is None:
            return self._as_looked_at(whole, returned, outputs, lookups)
        if after_batch >= self._full_through_batch:
            try:
                if all(map(self._only_latest_count, frames, frames.values())):
                    return self._collapsed_first(log, after_batch, through_batch, frames)
                return self._every_change(log, after_batch, through_batch, frames)
            except NotThisWayError as error:
                self._full_through_batch = error.through_batch
                self._logger.info(
                    "Batches %d to %d are taken whole: %s",
                    after_batch + 1,
                    error.through_batch,
                    error.reason,
                )
        return self._whole(whole, returned, outputs, lookups)

    def _only_latest_count(self, output: str, frame: Frame) -> bool:
        """Whether a change leaves no trace in a dataset that a later one of its key replaces.

        It does in a history, in an append table, and as the image that a soft delete keeps.
        """
        dataset = self._transform.outputs[output]
        return dataset.mode == "merge" and dataset.deletes == "hard" and frame.is_row_wise

    def _collapsed_first(
        self,
        log: ChangeLogSnapshot,
        after_batch: int,
        through_batch: int,
        frames: Mapping[str, Frame],
    ) -> Prepared:
        bounds = self._sizes.bounds()
        while True:
            parts = log.parts(after_batch, through_batch)
            try:
                with guarded(log.uri, "Reading changes"), parts:
                    return self._read(prepare(parts, frames, bounds))
            except TooMuchError as error:
                self._sizes.expect(error.row_bytes)
                # Half of it each time ends at a single batch, which is never too much.
                bounds = replace(
                    bounds, retained_bytes=bounds.retained_bytes // 2, row_bytes=error.row_bytes
                )

    def _every_change(
        self,
        log: ChangeLogSnapshot,
        after_batch: int,
        through_batch: int,
        frames: Mapping[str, Frame],
    ) -> Prepared:
        size, row_bytes = self._sizes.full_bytes, self._sizes.row_bytes
        return self._read(
            every_change(log, after_batch, through_batch, frames, size, row_bytes or 0.0)
        )

    def _as_looked_at(
        self,
        whole: FullChunk,
        returned: Mapping[str, object],
        outputs: Sequence[str],
        lookups: Mapping[str, pa.Table],
    ) -> Prepared:
        """With the columns that the function, or what it returned, has asked for so far."""
        try:
            rows = self._function.read(outputs, returned)
        except TransformError:
            return self._whole(whole, returned, outputs, lookups)
        taken = FunctionResult(whole.changes_with(frozenset()), rows, whole.refused)
        return Prepared(whole.facts(), taken)

    def _read(self, prepared: Prepared) -> Prepared:
        """The chunk with its rows as datasets take them."""
        taken = prepared.taken
        try:
            rows = self._function.read(taken.rows, taken.rows)
        except TransformError as error:
            raise NotThisWayError(prepared.facts.last_batch, error.what) from error
        self._sizes.learn(rows, len(taken.changes))
        return replace(prepared, taken=replace(taken, rows=rows))

    def _whole(
        self,
        whole: FullChunk,
        returned: Mapping[str, object] | None,
        outputs: Iterable[str],
        lookups: Mapping[str, pa.Table],
    ) -> Prepared:
        taken = self._function.take(outputs, whole.changes, lookups, whole.place, returned)
        refused = pa.concat_tables([whole.refused, taken.refused])
        return Prepared(whole.facts(), replace(taken, refused=refused))


def _unread(returned: Mapping[str, object]) -> dict[str, Frame] | None:
    """What was returned, if all of it is frames of which nothing was read yet."""
    frames = {
        output: frame
        for output, frame in returned.items()
        if isinstance(frame, Frame) and frame.is_unread
    }
    return frames if len(frames) == len(returned) else None
