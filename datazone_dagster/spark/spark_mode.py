"""A dataset's table that Spark writes: everything but the rows is as for our own engine.

The MERGE carries the position as Delta's transaction (`txnAppId`, `txnVersion`). Delta skips it if
the table has that position already, and fails it if another commit moves the position meanwhile.
Each commit has a token, so that what another writer has committed is not taken for ours.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from datazone_dagster.api import Dataset
from datazone_dagster.dataset.bucket_positions import marks_of
from datazone_dagster.dataset.dataset_table import DatasetTable
from datazone_dagster.dataset.history import DELETION_FIELDS
from datazone_dagster.dataset.modes import ChunkRows
from datazone_dagster.dataset.properties import apply_app_id, generation_of, rebuild_app_id
from datazone_dagster.dataset.restored import version_of_rows
from datazone_dagster.dataset.tombstones import Tombstones
from datazone_dagster.delta import Commit, guarded
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.delta.write_table import add_columns
from datazone_dagster.errors import ConcurrentWriterError, SchemaChangeError, StorageError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.process import crash_points
from datazone_dagster.rows.append import append
from datazone_dagster.rows.engine import MergeTarget
from datazone_dagster.spark.cached_view import cached
from datazone_dagster.spark.soft_statements import SoftStatements
from datazone_dagster.spark.spark_server import APP_ID, APP_VERSION, USER_METADATA, SparkServer
from datazone_dagster.spark.statements import (
    MergeSource,
    append_statement,
    doubled_query,
    history_query,
    merge_statement,
    tombstones_statement,
)


@dataclass(frozen=True)
class SparkBatch:
    """The changes of a chunk, which a session of Spark has by a name.

    Args:
        view: Name of the view.
        columns: Columns of its rows that go to the dataset, with the hidden ones.
        versions: Lowest and highest version of its changes.
        removed: Number of changes that remove their key.
        through_batch: Position of the dataset after it.
    """

    view: str
    columns: pa.Schema
    versions: tuple[str, str]
    removed: int
    through_batch: int


class SparkMode:
    """Implements `Mode` for chunks that a session of Spark holds.

    Args:
        server: The session.
        uri: The dataset, as Spark reaches it.
        source: Name of the dataset's source.
        tombstones: Tombstones of the dataset; None for a dataset that stores every event.
        tombstones_uri: Their table, as Spark reaches it.
        soft: Whether the rows of deleted items stay, marked.
    """

    def __init__(
        self,
        server: SparkServer,
        uri: str,
        source: str,
        tombstones: Tombstones | None,
        tombstones_uri: str,
        *,
        soft: bool = False,
    ) -> None:
        self.name = "append" if tombstones is None else "merge"
        self.fields: tuple[pa.Field, ...] = DELETION_FIELDS if soft else ()
        self._soft = soft
        self._server = server
        self._uri = uri
        self._source = source
        self._tombstones = tombstones
        self._tombstones_uri = tombstones_uri
        self._batch: SparkBatch | None = None

    def begin(self) -> None:
        """See `Mode.begin`: Spark writes tombstones by statements of its own."""

    def take(self, batch: SparkBatch) -> None:
        """Have a chunk ready, which the next call of `write` writes."""
        self._batch = batch

    def write(self, target: MergeTarget, chunk: ChunkRows, commit: Commit) -> MergeCounts:
        """Write the chunk that was taken; the rows of `chunk` are not used.

        Raises:
            ConcurrentWriterError: Another commit came first, keys were erased or redriven, or the
                table was rebuilt; no row was written.
            FailingValuesError: A value does not fit its column; the table is as it was.
            SchemaChangeError: The table has several rows of a key.
            SparkError: The server failed.
            StorageError: The store failed, or keys were erased while Spark wrote.
        """
        batch, self._batch = self._batch, None
        assert batch is not None, "a chunk was taken"
        table = target.table
        marks = self._marks(table.at)
        if target.added:
            with (
                guarded(target.uri, f"Adding columns to {target.title}"),
                table.by_delta_rs() as handle,
            ):
                add_columns(handle, target.added)
        crash_points.reach(crash_points.BEFORE_DATASET_COMMIT)
        with ExitStack() as views:
            statement, counts = self._statement(target, batch, chunk, views)
            found = self._merged(target, batch, statement, marks, commit)
            return found if counts is None else counts

    def _merged(
        self,
        target: MergeTarget,
        batch: SparkBatch,
        statement: str,
        marks: Mapping[str, int],
        commit: Commit,
    ) -> MergeCounts:
        """Run the MERGE, if nobody has written the table since it was looked at."""
        table = target.table
        table.refresh()
        if self._marks(table.at) != marks:
            raise ConcurrentWriterError(
                f"{target.title} has been written by another run, erased from, redriven, rebuilt "
                "or restored meanwhile.",
                safe="No row of this attempt was written; the other commit is in effect.",
                hint="The next run continues from the new state.",
            )
        crash_points.reach(crash_points.AFTER_TOMBSTONES)
        before, token = table.at, str(uuid.uuid4())
        settings = {
            APP_ID: apply_app_id(self._source),
            APP_VERSION: str(batch.through_batch),
            USER_METADATA: token,
        }
        self._server.run(statement, settings)
        table.refresh()
        if table.at.version == before.version:  # no row has changed: some versions commit nothing
            with guarded(target.uri, f"Moving the position of {target.title}"):
                append(table, table.schema.empty_table(), commit)
            return MergeCounts()
        return self._counts(target, before.version, marks, token)

    def _marks(self, table: Snapshot) -> dict[str, int]:
        """Return what a run, redrive, erasure, rebuild or RESTORE of the dataset changes."""
        rebuilds = {rebuild_app_id(self._source): generation_of(table, self._source)}
        rows = version_of_rows(table, self._source).transaction(apply_app_id(self._source))
        return marks_of(table, self._source) | rebuilds | {_ROWS: rows}

    def _statement(
        self, target: MergeTarget, batch: SparkBatch, chunk: ChunkRows, views: ExitStack
    ) -> tuple[str, MergeCounts | None]:
        """Return the MERGE, and its counts if Spark's are others; write the tombstones."""
        table, columns = target.schema, batch.columns
        if self._tombstones is None:
            merge = append_statement(self._uri, table, columns, batch.view, batch.versions)
            return merge, None
        if target.table.at.files and self._uri not in _one_row_per_key:
            found = self._server.run(doubled_query(self._uri))
            if len(found):
                raise _several_rows(target)
        _one_row_per_key.add(self._uri)
        if self._soft:
            return self._soft_statement(self._tombstones, target, batch, chunk, views)
        known = self._tombstones_uri if self._tombstones.exist() else None
        source = MergeSource(batch.view, known, batch.versions[0])
        if batch.removed:
            self._tombstones.prepare()
            self._server.run(tombstones_statement(self._tombstones_uri, source.sql, chunk.now))
            self._tombstones.maintain(chunk.now)
        return merge_statement(self._uri, table, columns, source.sql), None

    def _soft_statement(
        self,
        tombstones: Tombstones,
        target: MergeTarget,
        batch: SparkBatch,
        chunk: ChunkRows,
        views: ExitStack,
    ) -> tuple[str, MergeCounts]:
        tombstones.prepare()
        soft = SoftStatements(batch.view, self._uri, self._tombstones_uri)
        decided = views.enter_context(cached(self._server, soft.decided()))
        (facts,) = self._server.run(soft.facts(decided)).to_pylist()
        if facts["removed"]:
            self._server.run(soft.tombstones_statement(decided, chunk.now))
            tombstones.maintain(chunk.now)
        counts = MergeCounts(facts["inserted"], facts["updated"], facts["deleted"])
        return soft.merge(decided, target.schema, batch.columns), counts

    def _counts(
        self, target: MergeTarget, version: int, marks: Mapping[str, int], token: str
    ) -> MergeCounts:
        """Return what our commit changed, or find out that there is none."""
        history = self._server.run(history_query(self._uri)).to_pylist()
        ours = next((one for one in history if one.get("userMetadata") == token), None)
        if ours is None:
            raise ConcurrentWriterError(
                f"{target.title} has been moved by another run: Spark has skipped the commit.",
                safe="Nothing of this attempt was written; the other run's commit is in effect.",
                hint="The next run continues from the new state.",
            )
        if ours["version"] != version + 1:
            # Before the MERGE has read the table, or while it ran, without a conflict.
            self._require_same(target, marks)
            between = (one for one in history if version < one["version"] < ours["version"])
            if any(one.get("operation") == "RESTORE" for one in between):
                raise _restored(target)
        metrics = dict(ours.get("operationMetrics") or {})
        return MergeCounts(
            _number(metrics, "numTargetRowsInserted"),
            _number(metrics, "numTargetRowsUpdated"),
            _number(metrics, "numTargetRowsDeleted"),
        )

    def _require_same(self, target: MergeTarget, marks: Mapping[str, int]) -> None:
        """Check that nobody erased or redrove keys, or rebuilt the table, just before Spark began.

        Raises:
            StorageError: Somebody did: erased keys may be back, or rows of the rebuild missing.
        """
        own = {apply_app_id(self._source), _ROWS}
        now = self._marks(target.table.at)
        if any(at != marks.get(name, 0) for name, at in now.items() if name not in own):
            raise StorageError(
                f"{target.title}: keys were erased or redriven, or the table was rebuilt, in the "
                "moment between the look at it and the commit of Spark.",
                safe="The change log has every change; after an erasure or a redrive, the position "
                "and all other rows are right.",
                hint="Repeat the erasure or the redrive, or run `datazone-dagster rebuild "
                f"{target.dataset_id}`, which makes all rows again.",
            )


_one_row_per_key: set[str] = set()
"""Tables of which this process knows that no key has several rows."""


_ROWS = "rows"
"""Mark with the position of the rows: after a RESTORE, it is less than the transaction."""


def _restored(target: MergeTarget) -> StorageError:
    return StorageError(
        f"{target.title} was restored to an older version in the moment between the look at it "
        "and the commit of Spark, so changes before that commit are missing.",
        safe="The change log has every change.",
        hint=f"Run `datazone-dagster rebuild {target.dataset_id}`, which makes all rows again, or "
        "restore the table again.",
    )


def _several_rows(target: MergeTarget) -> SchemaChangeError:
    return SchemaChangeError(
        f"{target.title} has several rows of a key, which a SparkEngine can't replace as one.",
        safe="Nothing was written; the table is as it was.",
        hint=f"Run `datazone-dagster rebuild {target.dataset_id}`, or leave engine out.",
    )


def _number(metrics: Mapping[str, Any], name: str) -> int:
    return int(metrics.get(name) or 0)


class SparkDatasetTable(DatasetTable):
    """The table of a dataset that a session of Spark writes.

    Args:
        layout: Locations of the tables.
        dataset: The dataset.
        source: Name of its source.
        server: The session.
        reached: The location of a table as Spark reaches it.
    """

    def __init__(
        self,
        layout: Layout,
        dataset: Dataset,
        source: str,
        server: SparkServer,
        reached: Callable[[str], str],
    ) -> None:
        super().__init__(
            layout,
            dataset.id,
            source,
            mode=dataset.mode,
            ttl_deletes="apply",  # Spark leaves out what is ignored
            deletes=dataset.deletes,
            partition_by=dataset.partition_by,
            deletion_vectors=dataset.deletion_vectors,
            description=dataset.description,
        )
        tombstones = None if dataset.mode == "append" else self._tombstones
        self.spark = self._mode = SparkMode(
            server,
            reached(self.uri),
            source,
            tombstones,
            reached(self._tombstones.uri),
            soft=dataset.deletes == "soft",
        )

    def follows_transaction(self, position: int) -> bool:
        """Return whether Delta's transaction of the table is this position.

        It is another one after a RESTORE, and where buckets had positions of their own.
        """
        table = self._open()
        return table is None or table.transaction(self.app_id) == position
