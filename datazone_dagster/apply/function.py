"""Calls of the user's function on a chunk, and its results as rows."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa

from datazone_dagster.api import Transform
from datazone_dagster.apply.bad_records import readable, refused_rows, without
from datazone_dagster.apply.chunk import FunctionResult, ReadReport
from datazone_dagster.apply.failing_key import with_failing_key
from datazone_dagster.apply.first_changes import FirstChanges
from datazone_dagster.apply.full_scan import FullChunk
from datazone_dagster.apply.function_errors import failure_of, reason_of, with_context
from datazone_dagster.apply.isolate import NotIsolatedError, TooManyFailingError, failing_rows
from datazone_dagster.apply.latest_parts import LatestPart
from datazone_dagster.apply.parts import PartResult, evaluated_in_parts
from datazone_dagster.apply.path_mismatches import quarantined, view_types_of
from datazone_dagster.apply.reads import Reads
from datazone_dagster.apply.remote_chunk import RemoteChunk
from datazone_dagster.apply.sql_checks import SqlChecks
from datazone_dagster.database.database import Databases
from datazone_dagster.dataset.stored_state import FunctionState
from datazone_dagster.errors import OutOfMemoryError, TransformError
from datazone_dagster.frame.discovery import KnownItems
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.lookup import Lookup
from datazone_dagster.frame.query_session import MalformedImageError, Unread
from datazone_dagster.frame.result import rows_of, split_outputs
from datazone_dagster.model.column_names import HIDDEN, KEY
from datazone_dagster.model.quarantine_policy import (
    UNREADABLE_IMAGE,
    Failure,
    is_quarantined,
)
from datazone_dagster.model.report import PathMismatch


class Function:
    """The function of a transform: changes in, rows of each output out.

    `attributes` are the columns that `items()` has returned so far. Calls that only search for
    failing rows do not add to them. `reads` is what the frames found. `is_by_change` says whether
    the last call returned frames that compute the rows of a change from that change alone.
    `change_log` is the id of the log of the changes. `quarantine_limit` is the share of the keys
    that the function may fail on; None: the smallest of its datasets.
    """

    def __init__(
        self,
        transform: Transform,
        state: FunctionState,
        memory_limit_bytes: int,
        logger: logging.Logger,
        *,
        quarantine_limit: float | None = None,
    ) -> None:
        self.attributes = state.attributes
        self.reads = Reads(state.paths, transform.on_mismatch)
        self.is_by_change, self.change_log = False, ""
        self._memory_limit_bytes = memory_limit_bytes
        self._transform = transform
        self._logger = logger
        self._quarantine_limit = quarantine_limit
        self._databases, self._sql_checks = Databases(), SqlChecks(logger)
        self._known_items = KnownItems()
        self._part_bytes: int | None = None

    @property
    def state(self) -> FunctionState:
        """State after the chunks so far, to be stored with the datasets."""
        return FunctionState(self.attributes, self.reads.paths, change_log=self.change_log)

    @contextmanager
    def on_trial(self) -> Iterator[None]:
        """Forget what calls within the block have learnt, except `is_by_change`."""
        before = self.attributes, self.reads.names, self._known_items
        self._known_items = KnownItems()
        try:
            yield
        finally:
            self.attributes, self.reads.names, self._known_items = before

    def evaluate(
        self,
        outputs: Iterable[str],
        changes: pa.Table,
        lookups: Mapping[str, pa.Table],
        location: str,
        returned: Mapping[str, object] | None = None,
    ) -> FunctionResult:
        """Return the function's rows for some changes, and the changes that it can't take.

        Changes that need too much memory together are evaluated in parts. Changes with an
        unreadable image are refused. With `on_error="quarantine"`, so are changes
        that the function fails on; calls on parts of the chunk find them.

        Args:
            outputs: The requested outputs.
            changes: Changes with the hidden columns, oldest first.
            lookups: Lookup tables by parameter.
            location: Origin of the changes, for errors: `"batches 3 to 7"`.
            returned: The function's return values for the changes, if it was called.

        Raises:
            TransformError: The function failed on changes that can't be quarantined. Nothing was
                written.
        """
        outputs = tuple(outputs)
        if returned is not None or not self._is_too_large(changes):
            try:
                return self._evaluated(outputs, changes, lookups, location, returned)
            except OutOfMemoryError as error:
                if len(changes) < 2:
                    return self._alone(outputs, changes, error)
                self._halve(changes)

        def evaluate(part: pa.Table) -> PartResult:
            try:
                result = self._evaluated(outputs, part, lookups, location, None)
            except OutOfMemoryError:
                self._halve(part)
                raise
            return PartResult(result, self.reads.report)

        result = evaluated_in_parts(
            changes,
            evaluate,
            lambda change, error: PartResult(self._alone(outputs, change, error), ReadReport()),
            self._is_too_large,
        )
        self.reads.report = result.read
        return result.result

    def _is_too_large(self, changes: pa.Table) -> bool:
        """Return whether this many bytes of changes have needed too much memory before."""
        return self._part_bytes is not None and changes.nbytes > self._part_bytes

    def _halve(self, changes: pa.Table) -> None:
        """Record that these changes need too much memory together."""
        self._part_bytes = changes.nbytes // 2
        self._logger.info(
            "%d changes of %s need more memory together than the budget leaves: they are "
            "evaluated in parts.",
            len(changes),
            self._transform.name,
        )

    def _alone(
        self, outputs: Sequence[str], change: pa.Table, error: OutOfMemoryError
    ) -> FunctionResult:
        """Refuse a single change that needs too much memory, or fail."""
        if not is_quarantined(Failure.CHANGES, self._transform.on_error):
            raise error
        refused = refused_rows(change, {0: reason_of(error)})
        nothing = change.slice(0, 0)
        return FunctionResult(nothing, dict.fromkeys(outputs, nothing.select(HIDDEN)), refused)

    def _evaluated(
        self,
        outputs: Sequence[str],
        changes: pa.Table,
        lookups: Mapping[str, pa.Table],
        location: str,
        returned: Mapping[str, object] | None,
    ) -> FunctionResult:
        refused = [refused_rows(changes, {})]
        mismatches: tuple[PathMismatch, ...] = ()
        while True:
            try:
                result = self._attempt(outputs, changes, lookups, location, returned)
            except MalformedImageError as error:
                returned = None
                readable_changes, unreadable = readable(
                    changes, self.attributes, self._memory_limit_bytes
                )
                if not len(unreadable):
                    readable_changes, unreadable = self._unreadable_by_sql(
                        outputs, changes, lookups, error
                    )
                changes = readable_changes
                refused.append(unreadable)
            else:
                refused.append(result.refused)
                found = self.reads.mismatches(result.changes, result.rows)
                mismatches += tuple(one.counted for one in found)
                reasons = quarantined(found)
                if reasons:
                    refused.append(refused_rows(result.changes, reasons))
                    changes, returned = without(result.changes, reasons), None
                    if len(changes):
                        continue
                    result = self._nothing(outputs, changes)
                view_types = view_types_of(result.changes)
                self.reads.record(result.changes, mismatches, view_types, result.rows)
                return FunctionResult(result.changes, result.rows, pa.concat_tables(refused))

    def _nothing(self, outputs: Sequence[str], changes: pa.Table) -> FunctionResult:
        """Return the result for no change: functions need not handle an empty chunk."""
        rows = dict.fromkeys(outputs, changes.select(HIDDEN))
        return FunctionResult(changes, rows, refused_rows(changes, {}))

    def _attempt(
        self,
        outputs: Sequence[str],
        changes: pa.Table,
        lookups: Mapping[str, pa.Table],
        location: str,
        returned: Mapping[str, object] | None,
    ) -> FunctionResult:
        nothing = refused_rows(changes, {})
        try:
            rows = self._rows(outputs, changes, lookups, location, returned)
            return FunctionResult(changes, rows, nothing)
        except (MalformedImageError, OutOfMemoryError):
            raise
        except TransformError as error:
            if not is_quarantined(failure_of(error), self._transform.on_error):
                named = with_failing_key(
                    error, changes, lambda some: self._rows(outputs, some, lookups, "a subset")
                )
                if named is error:
                    raise
                raise named from error
            changes, refused = self._isolated(outputs, changes, lookups, error)
        if not len(changes):
            return replace(self._nothing(outputs, changes), refused=refused)
        rows = self._rows(outputs, changes, lookups, location)
        return FunctionResult(changes, rows, refused)

    def _unreadable_by_sql(
        self,
        outputs: Sequence[str],
        changes: pa.Table,
        lookups: Mapping[str, pa.Table],
        error: MalformedImageError,
    ) -> tuple[pa.Table, pa.Table]:
        """Find images that SQL can't read although `readable` accepts them.

        Such a record must not stop the stream, so it is searched for as failing rows are.
        """

        def fails(rows: Sequence[int]) -> str | None:
            before = self.attributes
            try:
                self._rows(outputs, changes.take(pa.array(rows, pa.int64())), lookups, "a subset")
            except OutOfMemoryError:
                raise
            except MalformedImageError:
                return UNREADABLE_IMAGE
            except TransformError:
                return None
            finally:
                self.attributes = before
            return None

        try:
            found = failing_rows(changes[KEY].to_pylist(), fails, UNREADABLE_IMAGE, limit=1.0)
        except NotIsolatedError:
            raise error from None
        return without(changes, found), refused_rows(changes, found)

    def _isolated(
        self,
        outputs: Sequence[str],
        changes: pa.Table,
        lookups: Mapping[str, pa.Table],
        error: TransformError,
    ) -> tuple[pa.Table, pa.Table]:
        """Return the changes that the function accepts, and the others with the reason."""

        def fails(rows: Sequence[int]) -> str | None:
            subset = changes.take(pa.array(rows, pa.int64()))
            before = self.attributes
            try:
                self._rows(outputs, subset, lookups, "a subset of them")
            except (MalformedImageError, OutOfMemoryError):
                raise
            except TransformError as failure:
                if failure_of(failure) is Failure.CODE:
                    raise
                return reason_of(failure)
            finally:
                self.attributes = before
            return None

        try:
            found = failing_rows(
                changes[KEY].to_pylist(), fails, reason_of(error), limit=self._limit(outputs)
            )
        except TooManyFailingError as many:
            raise type(error)(
                f"{error.what} {many}.",
                safe=error.safe,
                hint="Fix the function, or raise Dataset(quarantine_limit=...) to quarantine more.",
            ) from error
        except NotIsolatedError as unclear:
            raise type(error)(
                f"{error.what} Single changes are not the cause: {unclear}.",
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

    def _limit(self, outputs: Sequence[str]) -> float:
        if self._quarantine_limit is not None:
            return self._quarantine_limit
        return min(self._transform.outputs[output].quarantine_limit for output in outputs)

    def returned(
        self,
        chunk: FullChunk | LatestPart | FirstChanges | RemoteChunk,
        lookups: Mapping[str, pa.Table],
    ) -> dict[str, object]:
        """Call the function on a chunk, perhaps without reading it; return its values by output.

        Raises:
            TransformError: The function failed.
        """
        return with_context(
            self._transform.name,
            lambda: self._call(chunk.unread(), lookups),
            lambda: (chunk.changes_with(frozenset()), chunk.location),
        )

    def read(self, outputs: Iterable[str], returned: Mapping[str, object]) -> dict[str, pa.Table]:
        """Return the function's values for these outputs as rows.

        Raises:
            TransformError: A value can't be read, or a dataset can't take it.
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
        location: str,
        returned: Mapping[str, object] | None = None,
    ) -> dict[str, pa.Table]:
        def call() -> dict[str, pa.Table]:
            values = self._call(changes, lookups) if returned is None else returned
            return self.read(outputs, values)

        return with_context(self._transform.name, call, lambda: (changes, location))

    def _call(
        self, changes: pa.Table | Unread, lookups: Mapping[str, pa.Table]
    ) -> dict[str, object]:
        frame = Frame.of_changes(
            changes,
            lookups=lookups,
            memory_limit_bytes=self._memory_limit_bytes,
            attributes=self.attributes,
            may_grow=self._may_grow,
            databases=self._databases,
            found_paths=self.reads.paths.found,
            known_items=self._known_items,
        )
        arguments: dict[str, object] = {self._transform.stream_parameter: frame}
        arguments |= {
            name: Lookup.of_table(name, rows, memory_limit_bytes=self._memory_limit_bytes)
            for name, rows in lookups.items()
        }
        datasets = self._transform.outputs
        names = [(output, dataset.id) for output, dataset in datasets.items()]
        returned = split_outputs(self._transform.function(**arguments), names)
        self.is_by_change = not frame.field_names.rows_read and all(
            isinstance(value, Frame) and value.is_by_change for value in returned
        )
        for dataset, value in zip(datasets.values(), returned, strict=True):
            self._sql_checks.check(dataset, value, changes)
        self.attributes = frame.attributes
        self.reads.names = frame.field_names
        return dict(zip(datasets, returned, strict=True))

    def _may_grow(self, column: str) -> bool:
        """Return whether every dataset takes a struct with further fields in a column."""
        contracts = [dataset.contract for dataset in self._transform.outputs.values()]
        return all(
            contract.policy_of(column) == "evolve" and contract.declared(column) is None
            for contract in contracts
        )
