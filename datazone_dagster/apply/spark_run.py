"""The run of a transform whose datasets Spark writes.

Spark takes all changes up to the head at once. Changes that it might read in another way than the
library's own engine are applied by that one: values of another type than a path reads, records
that are no changes, texts that no number can be made of. So the result, the quarantine and the
errors are the same, whoever applies a chunk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.types as pt

from datazone_dagster.api import Transform
from datazone_dagster.api.function_version import function_version
from datazone_dagster.api.spark_engine import SparkEngine, is_on_s3
from datazone_dagster.apply.append_order import keys_waited_for
from datazone_dagster.apply.chunk import CHANGES_SCHEMA, ChunkFacts
from datazone_dagster.apply.pacing import ChunkCost
from datazone_dagster.apply.progress import advanced
from datazone_dagster.apply.remote_chunk import RemoteChunk, python_error
from datazone_dagster.apply.run import ApplyRun
from datazone_dagster.apply.trial_call import unread
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.changelog.numbering import BY_COMMIT
from datazone_dagster.dataset.dataset_table import ChunkWritten
from datazone_dagster.errors import SparkError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.result import rows_of
from datazone_dagster.model.column_names import KEY, Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import DeleteCounts, MergeCounts
from datazone_dagster.rows.stored_form import in_stored_form
from datazone_dagster.spark.cached_view import cached
from datazone_dagster.spark.frame_query import FrameQuery, frame_query
from datazone_dagster.spark.partition_sql import is_spelled_alike
from datazone_dagster.spark.probe_server import require_fit, require_folders
from datazone_dagster.spark.spark_mode import SparkBatch, SparkDatasetTable
from datazone_dagster.spark.spark_server import (
    FailingValuesError,
    SparkServer,
    connected,
    disconnected,
)
from datazone_dagster.spark.statements import (
    HAS_ATTRIBUTE,
    HAS_IMAGE,
    LogRange,
    batch_facts,
    batch_query,
    carried_columns,
)

FAILURES = 3
"""Chunks with failing values after which a run leaves the rest to the library's own engine."""


_LEFT_BY_VALUES = {
    "problem_through": "some values have another type than the function reads, or are no JSON.",
    "no_folder_through": "some values can't be those of a partition.",
}
"""Why a batch with some values is left to the library's own engine, by the fact that tells."""


class _Asked(NamedTuple):
    """What a dataset takes of a chunk: its frame, as Spark SQL, and its columns without rows."""

    frame: Frame
    query: FrameQuery
    rows: pa.Table


class _Ready(NamedTuple):
    """Changes of a range that the server has computed for a dataset, and facts of them."""

    output: str
    log_range: LogRange
    asked: _Asked
    view: str
    found: Mapping[str, Any]
    batch: Mapping[str, Any]


class LeftToOurselvesError(Exception):
    """Spark does not apply a chunk. The message says why.

    Args:
        reason: Why.
        through_batch: Last batch that the library's own engine has to apply.
    """

    def __init__(self, reason: str, through_batch: int) -> None:
        super().__init__(reason)
        self.through_batch = through_batch


class SparkRun(ApplyRun):
    """One run of a transform, as `ApplyRun`."""

    def __init__(self, transform: Transform, *args: Any, **options: Any) -> None:
        super().__init__(transform, *args, **options)
        engine = transform.engine
        assert engine is not None, "the caller has looked"
        self._engine = engine
        self._server: SparkServer | None = None
        self._spark_tables: dict[str, SparkDatasetTable] = {}
        self._ours_through = self._recorded_through = 0
        self._failures = 0

    def _apply_chunk(
        self, log: ChangeLogSnapshot, start: int, end: int, lookups: Mapping[str, pa.Table]
    ) -> int:
        require_safe_commits(self._layout)
        if start >= self._ours_through:
            try:
                return self._by_spark(log, start, end)
            except LeftToOurselvesError as left:
                self._ours_through = left.through_batch
                self._logger.warning(
                    "Batches %d to %d of %s are applied without Spark: %s",
                    *(start + 1, left.through_batch, self._transform.name, left),
                )
            except SparkError:
                disconnected(self._engine)
                raise
        return super()._apply_chunk(log, start, end, lookups)

    def _connect(self) -> SparkServer:
        server = connected(self._engine)
        if server is not self._server:
            require_fit(server, self._engine, self._layout, self._reached)
            if any(self._partition_by.values()):
                require_folders(server, self._engine, self._layout, self._reached)
            self._spark_tables = {
                output: SparkDatasetTable(
                    self._layout, dataset, self._transform.source.name, server, self._reached
                )
                for output, dataset in self._datasets.items()
            }
            self._server = server
        return server

    def _reached(self, uri: str) -> str:
        return location_for(self._engine, self._layout.uri, uri)

    def _by_spark(self, log: ChangeLogSnapshot, start: int, end: int) -> int:
        """Apply a range to the datasets at its start.

        Raises:
            LeftToOurselvesError: The library's own engine has to apply some batches of it.
        """
        started_seconds = time.monotonic()
        behind = {name: one for name, one in self._reports.items() if one.position <= start}
        chunk = RemoteChunk(self._transform.name, start + 1, end)
        frames = unread(self._function.returned(chunk, {}))
        if frames is None or not all(frame.is_row_wise for frame in frames.values()):
            raise python_error(self._transform.name)
        queries = {output: self._query(output, frames[output]) for output in behind}
        if BY_COMMIT in log.properties:
            raise LeftToOurselvesError(
                'the source has drain="runs", or had it: new files of its change log have no '
                "numbers of batches, which Spark would need.",
                end,
            )
        for output, asked in queries.items():
            self._require_plain(output, asked.rows, end)
        server = self._connect()
        for output in behind:
            known = self._progress[output]
            if known.ahead or not self._spark_tables[output].follows_transaction(known.position):
                raise LeftToOurselvesError("the table was restored, or had buckets.", start + 1)
        try:
            facts, counts = self._all_by_spark(server, log, start, end, queries)
        except FailingValuesError as error:
            self._failures += 1
            through = end if self._failures >= FAILURES else start + 1
            raise LeftToOurselvesError(f"{error}", through) from error
        self._maintenance.merged_into(behind)
        seconds = time.monotonic() - started_seconds
        self._last_cost = ChunkCost(log.stored_bytes(start, end), seconds / 2, seconds / 2)
        self._report_chunk(facts, counts, seconds)
        return end

    def _require_plain(self, output: str, rows: pa.Table, end: int) -> None:
        """Check that a table is one that Spark writes as the library's own engine does.

        Raises:
            LeftToOurselvesError: It is not.
        """
        dataset, table = self._datasets[output], self._tables[output]
        columns = table.columns_with(rows.schema)
        for name in {*self._partition_by[output]} & {*columns.names}:
            kind = columns.field(name).type
            if not is_spelled_alike(kind):
                raise LeftToOurselvesError(f"the table is partitioned by {name!r}, a {kind}.", end)
        if keys_waited_for(dataset, table, self._target, self._progress[output]):
            raise LeftToOurselvesError("changes wait in the quarantine.", end)
        stored = in_stored_form(rows, columns, {})
        if not stored.schema.equals(rows.schema):
            raise LeftToOurselvesError(
                "the table has names or times of an older version of the library.", end
            )

    def _all_by_spark(
        self,
        server: SparkServer,
        log: ChangeLogSnapshot,
        start: int,
        end: int,
        queries: Mapping[str, _Asked],
    ) -> tuple[ChunkFacts, MergeCounts]:
        """Apply a range: the changes of every dataset are ready before one is written."""
        counts = MergeCounts()
        with ExitStack() as kept:
            ready = []
            for output, asked in queries.items():
                ignore_ttl = self._datasets[output].ttl_deletes == "ignore"
                log_range = LogRange(self._reached(log.uri), log.version, start, end, ignore_ttl)
                ready.append(self._ready(server, log_range, output, asked, kept))
            if end > self._recorded_through:
                self._record(ready)
                self._recorded_through = end
            for one in ready:
                counts += self._write_by_spark(one)
        return _chunk_facts(ready[-1].found, ready[-1].log_range), counts

    def _ready(
        self,
        server: SparkServer,
        log_range: LogRange,
        output: str,
        asked: _Asked,
        kept: ExitStack,
    ) -> _Ready:
        """Have the changes of a range for one dataset computed; nothing is written."""
        (found,) = server.run(log_range.facts()).to_pylist()
        if found["unclear_through"] is not None:
            raise LeftToOurselvesError(
                "some records are no changes, or have keys of another form.",
                found["unclear_through"],
            )
        query, dataset = asked.query, self._datasets[output]
        latest_of: tuple[str, ...] = () if dataset.mode == "append" else (KEY,)
        if dataset.deletes == "soft":
            latest_of = (KEY, Log.VERSION)
        view = kept.enter_context(cached(server, batch_query(log_range, query, latest_of)))
        names = asked.rows.schema.names
        partitions = [query.schema.field(one) for one in self._partition_by[output] if one in names]
        facts = batch_facts(view, len(query.view.found), partitions)
        (batch,) = server.run(facts).to_pylist()
        for through, reason in _LEFT_BY_VALUES.items():
            if batch[through] is not None:
                raise LeftToOurselvesError(reason, batch[through])
        return _Ready(output, log_range, asked, view, found, batch)

    def _write_by_spark(self, ready: _Ready) -> MergeCounts:
        """Write what is ready into one dataset."""
        output, log_range, asked, view, found, batch = ready
        versions = (found["lowest"] or "", found["highest"] or "")
        columns, removed = asked.query.schema, batch["removed"]
        self._spark_tables[output].spark.take(
            SparkBatch(view, columns, versions, removed, log_range.through_batch)
        )
        written = self._committed(output, asked.rows, log_range.through_batch)
        deletes = DeleteCounts(ttl_ignored=found["expired"] if log_range.ignore_ttl else 0)
        if self._datasets[output].mode != "append":
            deletes += DeleteCounts(batch["filtered"], batch["filtered_by_ttl"])
        self._reports[output] = advanced(
            self._reports[output],
            _chunk_facts(found, log_range),
            asked.rows,
            counts=written.counts,
            deletes=deletes,
            quarantined=0,
            table_version=written.table_version,
            new_columns=written.added_columns,
            read=self._function.reads.report,
        )
        return written.counts

    def _committed(self, output: str, rows: pa.Table, through_batch: int) -> ChunkWritten:
        """Commit the batch that the table of a dataset was given."""
        began = self._progress[output]
        written = self._spark_tables[output].apply(
            CHANGES_SCHEMA.empty_table(),
            rows,
            after_batch=began.position,
            through_batch=through_batch,
            now=self._clock(),
            state=self._function.state,
            known=began,
            version=function_version(self._transform),
            start=self._starts.get(output),
        )
        self._starts.pop(output, None)
        self._progress[output] = began.moved_to(through_batch)
        return written

    def _query(self, output: str, frame: Frame) -> _Asked:
        """Return the frame as Spark SQL, and its columns as a table without rows."""
        dataset = self._datasets[output]
        raw = frame.rows_of(CHANGES_SCHEMA.empty_table())
        names = [name for name in frame.columns if not pt.is_null(raw.schema.field(name).type)]
        rows = rows_of(raw, dataset_id=dataset.id, mode=dataset.mode)
        where = f"Dataset {dataset.id!r}"
        plan = frame.plan
        carried = carried_columns(len(plan.names.unfound(plan.needs)))
        return _Asked(frame, frame_query(frame, names, rows.schema, carried, where), rows)

    def _record(self, ready: Sequence[_Ready]) -> None:
        """Record in which records the paths of a range found their attributes, each path once."""
        columns: set[str] = set()
        counted: set[str] = set()
        for one in ready:
            columns |= set(one.asked.rows.column_names)
            notes = one.asked.frame.field_names.notes
            for at, (name, _, _) in enumerate(one.asked.query.view.found):
                if name not in counted:
                    counted.add(name)
                    notes.records[name] += one.batch[HAS_IMAGE.format(at)]
                    notes.present[name] += one.batch[HAS_ATTRIBUTE.format(at)]
        first = ready[0]
        self._function.reads.record_counted(
            first.batch["changes"], (), first.found["view_types"], columns
        )


def _chunk_facts(found: Mapping[str, Any], log_range: LogRange) -> ChunkFacts:
    return ChunkFacts(
        found["first_batch"] or log_range.after_batch + 1,
        log_range.through_batch,
        records=found["records"],
        record_bytes=found["record_bytes"],
        decoded_bytes=found["record_bytes"],
        event_time_min=found["event_time_min"],
        event_time_max=found["event_time_max"],
    )


def require_safe_commits(layout: Layout) -> None:
    """Check that commits of Spark to a lakehouse can't overwrite those of others.

    Raises:
        SparkError: They can.
    """
    if not is_on_s3(layout.uri):
        return
    raise SparkError(
        f"The lakehouse at {layout.uri} is on S3, where commits of Spark's Delta Lake can "
        "overwrite those of other writers: its log store there does not put only what is absent.",
        safe="Nothing was applied; the change log keeps the changes.",
        hint="Leave engine out: the library's own engine commits safely on S3. Spark does on "
        "ADLS, GCS, HDFS and local disks.",
    )


def location_for(engine: SparkEngine, lakehouse: str, uri: str) -> str:
    """Return the location of a table as Spark reaches it."""
    if engine.lakehouse is not None:
        return engine.lakehouse.rstrip("/") + uri.removeprefix(lakehouse.rstrip("/"))
    return uri if "://" in uri else os.path.abspath(uri)
