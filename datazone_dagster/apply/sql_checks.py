"""Checks of the SQL of frames: each row is of one key, and none is there by chance."""

from __future__ import annotations

import logging

import pyarrow as pa

from datazone_dagster.api import Dataset
from datazone_dagster.apply.one_key import check_one_key
from datazone_dagster.errors import ResultError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.query_session import Unread


class SqlChecks:
    """Checks of the frames of one run: each column is warned of once.

    Args:
        logger: Logger of the warnings.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._warned: set[tuple[str, str]] = set()

    def check(self, dataset: Dataset, value: object, changes: pa.Table | Unread) -> None:
        """Check that a frame's rows are each of one key, and are there because of changes alone.

        Only the SQL of frames is known. A result of Python code is not checked.

        Args:
            dataset: Dataset that the value is for.
            value: Value that the function returned for it.
            changes: Changes of the chunk.

        Raises:
            ResultError: In merge or history mode, the SQL combines changes of several keys, or a
                volatile function decides which rows there are.
        """
        if not isinstance(value, Frame):
            return
        if dataset.mode != "append":
            check_one_key(dataset, value, changes)
            _check_no_chance(dataset, value)
        for column, function in value.volatile.items():
            self._warn(
                (dataset.id, column),
                "Dataset %r: the values of %r are from %s. A change that is applied again, by a "
                "retry or a rebuild, gets another value, and so does each output of the transform. "
                "The time of a change is _dz_event_time.",
                dataset.id,
                column,
                function,
            )
        for mixing in value.mixing if dataset.mode != "append" else ():
            if mixing.of_chunk:
                self._warn(
                    (dataset.id, mixing.call),
                    "Dataset %r: in %s, %s sees only those changes of a key that are in the chunk. "
                    "Where a chunk begins differs from run to run and in a rebuild, and so do the "
                    "values. The state before a change is dynamodb.OldImage; counts and sums "
                    "belong in an asset downstream, which reads the dataset.",
                    dataset.id,
                    mixing.call,
                    mixing.of_chunk,
                )

    def _warn(self, what: tuple[str, str], text: str, *values: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            self._logger.warning(text, *values)


def _check_no_chance(dataset: Dataset, frame: Frame) -> None:
    if not frame.deciding:
        return
    found = frame.deciding[0]
    raise ResultError(
        f"Dataset {dataset.id!r}: in {found.call}, {found.function} decides which rows there are. "
        "It gives another value each time, and a key without rows is removed in "
        f"mode={dataset.mode!r}: a change that is applied again, by a retry or a rebuild, would "
        "keep other keys.",
        safe="Nothing was written.",
        hint="The time of a change is _dz_event_time. A condition on the current time, or a random "
        "sample, belongs in an asset downstream, which reads the dataset. For a fixed share of "
        "the keys: hash(_dz_key) % 10 = 0.",
    )
