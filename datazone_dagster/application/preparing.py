"""From the change log to rows that are ready to be committed: one chunk at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pyarrow as pa

from datazone_dagster.api import Dataset, Transform
from datazone_dagster.application.chunk import WholeChunk
from datazone_dagster.application.collapsed_first import (
    NotThisWayError,
    Prepared,
    TooMuchError,
    prepare,
)
from datazone_dagster.application.function import Function
from datazone_dagster.application.sizes import ChunkSizes
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.delta import guarded
from datazone_dagster.errors import TransformError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.session import MalformedImageError


class Preparation:
    """Takes the chunks of one run through the function, each the cheapest exact way."""

    def __init__(
        self, transform: Transform, function: Function, sizes: ChunkSizes, logger: logging.Logger
    ) -> None:
        self._transform = transform
        self._function = function
        self._sizes = sizes
        self._logger = logger
        self._whole_through_batch = 0

    def next_chunk(
        self,
        log: ChangeLogSnapshot,
        after_batch: int,
        through_batch: int,
        outputs: Iterable[str],
        lookups: Mapping[str, pa.Table],
    ) -> Prepared:
        """The next chunk of a range that has changes, for the datasets that stand at its start.

        Raises:
            TransformError: The function failed, or its result can't be applied.
            StorageError: The change log can't be read.
        """
        whole = WholeChunk(
            lambda: next(log.chunks(after_batch, through_batch, self._sizes.whole_bytes))
        )
        outputs = list(outputs)
        try:
            returned = self._function.returned(whole, lookups)
        except TransformError as error:
            if self._transform.on_error == "fail" and not isinstance(error, MalformedImageError):
                raise
            return self._whole(whole, None, outputs, lookups)
        frames = self._row_wise(returned, outputs)
        if frames is not None and after_batch >= self._whole_through_batch:
            prepared = self._collapsed_first(log, after_batch, through_batch, frames)
            if prepared is not None:
                return prepared
        return self._whole(whole, returned, outputs, lookups)

    def _row_wise(
        self, returned: Mapping[str, object], outputs: Iterable[str]
    ) -> dict[str, Frame] | None:
        """The frames that give the same from the latest changes only; None if one does not."""
        frames: dict[str, Frame] = {}
        for output in outputs:
            frame = returned[output]
            counts = _only_latest_count(self._transform.outputs[output])
            if not (counts and isinstance(frame, Frame) and frame.is_row_wise):
                return None
            frames[output] = frame
        return frames

    def _collapsed_first(
        self,
        log: ChangeLogSnapshot,
        after_batch: int,
        through_batch: int,
        frames: Mapping[str, Frame],
    ) -> Prepared | None:
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
                    bounds, kept_bytes=bounds.kept_bytes // 2, row_bytes=error.row_bytes
                )
            except NotThisWayError as error:
                self._whole_through_batch = error.through_batch
                self._logger.info(
                    "Batches %d to %d are taken whole: %s",
                    after_batch + 1,
                    error.through_batch,
                    error.reason,
                )
                return None

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
        whole: WholeChunk,
        returned: Mapping[str, object] | None,
        outputs: Iterable[str],
        lookups: Mapping[str, pa.Table],
    ) -> Prepared:
        taken = self._function.take(outputs, whole.changes, lookups, whole.place, returned)
        refused = pa.concat_tables([whole.refused, taken.refused])
        return Prepared(whole.facts(), replace(taken, refused=refused))


def _only_latest_count(dataset: Dataset) -> bool:
    """Whether a change leaves no trace in a dataset that a later one of its key replaces.

    It does in a history, in an append table, as the image that a soft delete keeps, and where
    the contract may refuse the later one.
    """
    return dataset.mode == "merge" and dataset.deletes == "hard" and not dataset.contract.may_refuse
