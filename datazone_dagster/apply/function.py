"""Calling the user's function on a chunk, and reading what it returned as rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from datazone_dagster.api import Transform
from datazone_dagster.apply.bad_records import FUNCTION_FAILED, readable, refused_rows, without
from datazone_dagster.apply.chunk import FullChunk
from datazone_dagster.apply.isolate import NotIsolatedError, failing_rows
from datazone_dagster.errors import DatazoneError, HiddenColumnsError, ResultError, TransformError
from datazone_dagster.frame.database import Databases
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.lookup import Lookup
from datazone_dagster.frame.query_session import MalformedImageError, Unread
from datazone_dagster.frame.result import rows_of, split_outputs
from datazone_dagster.model.attributes import AttributeMapping
from datazone_dagster.model.column_names import HIDDEN, KEY

R = TypeVar("R")

_KEYS_IN_AN_ERROR = 5
_REASON_CHARS = 500
_OF_THE_CODE = (HiddenColumnsError, ResultError)
"""What no choice of rows can mend: the function returns something else than rows of the chunk."""


@dataclass(frozen=True)
class FunctionResult:
    """What a function made of a chunk.

    Args:
        changes: The changes that it took.
        rows: What it returned for each output.
        refused: The other changes, with the change log's columns and a `reason`.
    """

    changes: pa.Table
    rows: Mapping[str, pa.Table]
    refused: pa.Table


class Function:
    """The function of a transform, as a run calls it: changes in, rows of each output out.

    `attributes` are the columns that `items()` has given so far; they grow with the calls that
    count, not with those that only look for failing rows.
    """

    def __init__(
        self,
        transform: Transform,
        attributes: AttributeMapping,
        memory_limit_bytes: int,
        logger: logging.Logger,
    ) -> None:
        self.attributes = attributes
        self._memory_limit_bytes = memory_limit_bytes
        self._transform = transform
        self._logger = logger
        self._databases = Databases()

    def take(
        self,
        outputs: Iterable[str],
        changes: pa.Table,
        lookups: Mapping[str, pa.Table],
        place: str,
        returned: Mapping[str, object] | None = None,
    ) -> FunctionResult:
        """What the function makes of some changes, and which of them it can't take.

        Changes whose image can't be read are refused. With `on_error="quarantine"` so are
        those that the function fails on; it is called on parts of the chunk to find them.

        Args:
            outputs: The outputs that are wanted.
            changes: Changes with the hidden columns, oldest first.
            lookups: By parameter.
            place: Where they come from, for errors: `"batches 3 to 7"`.
            returned: What the function returned of them, if it was called.

        Raises:
            TransformError: It failed on what can't be set aside. Nothing was written.
        """
        outputs = tuple(outputs)
        refused = [refused_rows(changes, {})]
        while True:
            try:
                taken = self._attempt(outputs, changes, lookups, place, returned)
            except MalformedImageError as error:
                returned = None
                readable_changes, unreadable = readable(changes, self.attributes)
                if not len(unreadable):
                    readable_changes, unreadable = self._searched(outputs, changes, lookups, error)
                changes = readable_changes
                refused.append(unreadable)
            else:
                together = pa.concat_tables([*refused, taken.refused])
                return FunctionResult(taken.changes, taken.rows, together)

    def _attempt(
        self,
        outputs: Sequence[str],
        changes: pa.Table,
        lookups: Mapping[str, pa.Table],
        place: str,
        returned: Mapping[str, object] | None,
    ) -> FunctionResult:
        nothing = refused_rows(changes, {})
        try:
            rows = self._rows(outputs, changes, lookups, place, returned)
            return FunctionResult(changes, rows, nothing)
        except MalformedImageError:
            raise
        except TransformError as error:
            if not self._may_quarantine(error):
                raise
            changes, refused = self._isolated(outputs, changes, lookups, error)
        if len(changes):
            rows = self._rows(outputs, changes, lookups, place)
        else:  # no change is left, and a function need not stand an empty chunk
            rows = dict.fromkeys(outputs, changes.select(HIDDEN))
        return FunctionResult(changes, rows, refused)

    def _searched(
        self,
        outputs: Sequence[str],
        changes: pa.Table,
        lookups: Mapping[str, pa.Table],
        error: MalformedImageError,
    ) -> tuple[pa.Table, pa.Table]:
        """As `readable`, for what reading by SQL refuses and looking at single images does not.

        The stream must not stop at a record for that, so it is found as failing rows are.
        """

        def fails(rows: Sequence[int]) -> str | None:
            before = self.attributes
            try:
                self._rows(outputs, changes.take(pa.array(rows, pa.int64())), lookups, "a part")
            except MalformedImageError:
                return _UNREADABLE
            except TransformError:
                return None
            finally:
                self.attributes = before
            return None

        try:
            found = failing_rows(changes[KEY].to_pylist(), fails, _UNREADABLE)
        except NotIsolatedError:
            raise error from None
        return without(changes, found), refused_rows(changes, found)

    def _may_quarantine(self, error: TransformError) -> bool:
        return self._transform.on_error == "quarantine" and not isinstance(error, _OF_THE_CODE)

    def _isolated(
        self,
        outputs: Sequence[str],
        changes: pa.Table,
        lookups: Mapping[str, pa.Table],
        error: TransformError,
    ) -> tuple[pa.Table, pa.Table]:
        """The changes that the function takes one by one, and the others with the reason."""

        def fails(rows: Sequence[int]) -> str | None:
            part = changes.take(pa.array(rows, pa.int64()))
            before = self.attributes
            try:
                self._rows(outputs, part, lookups, "a part of them")
            except MalformedImageError:
                raise
            except TransformError as failure:
                if isinstance(failure, _OF_THE_CODE):
                    raise
                return _reason(failure)
            finally:
                self.attributes = before
            return None

        try:
            found = failing_rows(changes[KEY].to_pylist(), fails, _reason(error))
        except NotIsolatedError as hopeless:
            raise type(error)(
                f"{error.what} It is not the fault of single changes: {hopeless}.",
                safe=error.safe,
                hint=error.hint,
            ) from error
        self._logger.warning(
            "The function of %s fails on %d of %d changes; they go to the quarantine.",
            self._transform.name,
            len(found),
            len(changes),
        )
        return without(changes, found), refused_rows(changes, found)

    def returned(self, chunk: FullChunk, lookups: Mapping[str, pa.Table]) -> dict[str, object]:
        """What the function returns of a chunk, by output; the chunk may still be unread then.

        Raises:
            TransformError: It failed.
        """
        return self._told(
            lambda: self._call(chunk.unread(), lookups),
            lambda: (chunk.changes_with(frozenset()), chunk.place),
        )

    def read(self, outputs: Iterable[str], returned: Mapping[str, object]) -> dict[str, pa.Table]:
        """What the function returned for these outputs, as rows.

        Raises:
            TransformError: It can't be read, or is not what a dataset takes.
        """
        datasets = self._transform.outputs
        return {
            output: rows_of(
                returned[output], dataset_id=datasets[output].id, mode=datasets[output].mode
            )
            for output in outputs
        }

    def _rows(
        self,
        outputs: Sequence[str],
        changes: pa.Table,
        lookups: Mapping[str, pa.Table],
        place: str,
        returned: Mapping[str, object] | None = None,
    ) -> dict[str, pa.Table]:
        def call() -> dict[str, pa.Table]:
            values = self._call(changes, lookups) if returned is None else returned
            return self.read(outputs, values)

        return self._told(call, lambda: (changes, place))

    def _call(
        self, changes: pa.Table | Unread, lookups: Mapping[str, pa.Table]
    ) -> dict[str, object]:
        frame = Frame.of_changes(
            changes,
            lookups=lookups,
            memory_limit_bytes=self._memory_limit_bytes,
            attributes=self.attributes,
            databases=self._databases,
        )
        arguments: dict[str, object] = {self._transform.stream_parameter: frame}
        arguments |= {name: Lookup.of_table(name, rows) for name, rows in lookups.items()}
        datasets = self._transform.outputs
        names = [(output, dataset.id) for output, dataset in datasets.items()]
        returned = split_outputs(self._transform.function(**arguments), names)
        self.attributes = frame.attributes
        return dict(zip(datasets, returned, strict=True))

    def _told(self, call: Callable[[], R], told: Callable[[], tuple[pa.Table, str]]) -> R:
        """Call it; what it raises comes out with the place and the first keys in it."""
        try:
            return call()
        except MalformedImageError:
            raise
        except TransformError as error:
            raise type(error)(
                f"{error.what.rstrip('.')} ({self._where(*told())}).",
                safe=_SAFE,
                hint=error.hint,
            ) from error
        except DatazoneError:
            raise
        except Exception as error:
            raise TransformError(
                f"The function of transform {self._transform.name!r} raised "
                f"{type(error).__name__}: {error} ({self._where(*told())}).",
                safe=_SAFE,
                hint="Mend the function and run it again.",
            ) from error

    def _where(self, changes: pa.Table, place: str) -> str:
        keys = ", ".join(changes[KEY].slice(0, _KEYS_IN_AN_ERROR).to_pylist())
        plural = "" if len(changes) == 1 else "s"
        return f"{place}, {len(changes)} change{plural}, first keys: {keys or 'none'}"


_UNREADABLE = "an image holds a value that is not of its type"
_SAFE = "Nothing of this chunk was applied; the change log keeps it and the next run tries again."


def _reason(error: TransformError) -> str:
    cause = error.__cause__
    text = error.what if cause is None or isinstance(cause, DatazoneError) else _said(cause)
    return FUNCTION_FAILED + " ".join(text.split())[:_REASON_CHARS]


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
