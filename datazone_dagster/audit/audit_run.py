"""An audit: plan, scan, comparison, and a second look at what differs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.api import DynamoDBSource, Transform
from datazone_dagster.audit.audit_plan import Planned, planned
from datazone_dagster.audit.catching_up import CatchingUp
from datazone_dagster.audit.expected_rows import (
    DEPENDS_ON_THE_RECORD,
    NOT_RETURNED,
    PROBED_ROWS,
    ExpectedRows,
)
from datazone_dagster.audit.first_look import FirstLook, require_time
from datazone_dagster.audit.second_look import NO_KEY, TOO_MANY, SecondLook
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.dataset.row_hashes import HASH, ROWS, RowHashes, payload_names
from datazone_dagster.dataset.rows_of_keys import ShownDataset
from datazone_dagster.items.keys import key_column
from datazone_dagster.model.audit_report import (
    EXTRA,
    AuditPlan,
    AuditReport,
    AuditSettings,
    DatasetAudit,
)
from datazone_dagster.model.column_names import KEY
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, utc_now
from datazone_dagster.model.table_scan import ScannedItem, TableClient
from datazone_dagster.process.shutdown import shutdown_requested
from datazone_dagster.snapshot.rate import TokenBucket
from datazone_dagster.snapshot.scan import Until
from datazone_dagster.snapshot.scanned_records import ScannedRecords

CHUNK_ITEMS = 20_000
CHUNK_BYTES = 16 << 20
"""Items, and their bytes, that the function is called on at once."""

COMPARED_ROWS = 50_000
"""Rows of a dataset that are hashed at once."""

_ANY_EPOCH = 1

_logger = logging.getLogger(__name__)


def plan_audit(
    source: DynamoDBSource,
    transforms: Sequence[Transform],
    layout: Layout,
    client: TableClient,
    *,
    dataset_ids: Collection[str] = (),
    settings: AuditSettings = AuditSettings(),
) -> AuditPlan:
    """Return what an audit would read, and what it would cost. Asks DescribeTable only.

    Arguments and errors are those of `audit_source`.
    """
    table = client.describe_table()
    return planned(source, transforms, layout, table, dataset_ids, settings).plan


def audit_source(
    source: DynamoDBSource,
    transforms: Sequence[Transform],
    layout: Layout,
    client: TableClient,
    *,
    dataset_ids: Collection[str] = (),
    settings: AuditSettings = AuditSettings(),
    deadline_seconds: float | None = None,
    stop: Callable[[], bool] = shutdown_requested,
    on_plan: Callable[[AuditPlan], None] | None = None,
    clock: Clock = utc_now,
    monotonic: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
    logger: logging.Logger = _logger,
) -> AuditReport:
    """Compare the table of a source, as it is now, with the datasets made of it.

    Each item of a fresh consistent scan passes through the function, and the rows are compared
    with those of the dataset. A key that differs is looked at again, and counts only if it still
    differs once drain and dataset have passed that look. So the drain and the runs of the datasets
    have to go on meanwhile; writes to the table may.

    Nothing is written but, where the stream is idle, a property of the change log that asks the
    drain to record its position.

    Args:
        source: The source.
        transforms: Transforms of the project; those of other sources are left out.
        layout: Locations of the tables.
        client: Client of the table's items.
        dataset_ids: Datasets to audit; none: all of the source. Those of mode append hold events,
            and are left out.
        settings: Sample and bounds.
        deadline_seconds: Time after which the audit gives up, in seconds from now.
        stop: Returns whether to give up.
        on_plan: Called with the plan before the first page is read.
        clock: Source of the current time.
        monotonic: Clock that never goes back, in seconds.
        pause: Waits a number of seconds.
        logger: Logger.

    Returns:
        Missing, extra and stale keys by dataset, and what could not be decided.

    Raises:
        DefinitionError: A dataset is unknown.
        SnapshotError: The source can't be audited, or the audit was told to stop.
        SourceError: The table can't be read.
        StorageError: The lakehouse can't be read.
        TransformError: A function fails on items, or its rows do not fit its dataset.
    """
    limit = float("inf") if deadline_seconds is None else monotonic() + deadline_seconds
    table = client.describe_table()
    plan = planned(source, transforms, layout, table, dataset_ids, settings)
    if on_plan is not None:
        on_plan(plan.plan)
    until = Until(limit, stop, monotonic, pause)
    records = ScannedRecords(source, _ANY_EPOCH, table.table_arn)
    with RowHashes(settings.memory_limit_bytes) as hashes:
        run = AuditRun(
            source,
            plan,
            layout,
            client,
            frozenset(table.key_names),
            records,
            hashes,
            settings,
            until,
            clock,
            logger,
        )
        return run.run()


@dataclass
class AuditRun:
    """One audit of one source; arguments as for `audit_source`."""

    source: DynamoDBSource
    planned: Planned
    layout: Layout
    client: TableClient
    key_names: frozenset[str]
    records: ScannedRecords
    hashes: RowHashes
    settings: AuditSettings
    until: Until
    clock: Clock
    logger: logging.Logger
    _first_at: datetime | None = None
    _last_at: datetime | None = None
    _units: float = 0.0
    _skipped: dict[str, str] = field(default_factory=dict)

    def run(self) -> AuditReport:
        """Scan, compare, look again."""
        plan = self.planned.plan
        bucket = TokenBucket(plan.units_per_second, self.until.monotonic())
        expected = [
            ExpectedRows(
                transform,
                self.layout,
                self.records,
                self.hashes,
                self.settings.memory_limit_bytes,
                plan.datasets,
                self.logger,
            )
            for transform in self.planned.transforms
        ]
        if expected:
            self._scan(expected, bucket)
        catching_up = CatchingUp(
            ChangeLog(self.layout, self.source),
            self.layout,
            self.until,
            self.until.monotonic() + self.settings.wait_seconds,
            self.clock,
        )
        results: list[DatasetAudit] = []
        for number, one in enumerate(expected):
            results += self._compared(number, one, catching_up, bucket)
        skipped = {**plan.skipped, **self._skipped}
        audited = tuple(one for one in plan.datasets if one not in skipped)
        return AuditReport(
            replace(plan, datasets=audited, skipped=skipped),
            tuple(results),
            self._units,
            self._last_at,
            self._first_at,
        )

    def _scan(self, expected: Sequence[ExpectedRows], bucket: TokenBucket) -> None:
        """Store the fingerprints of the rows that the scanned items make."""
        look = FirstLook(
            self.client,
            self.planned.segments,
            self.planned.plan.segments_total,
            bucket,
            self.settings.workers,
            self.until,
        )
        probed = False
        for items, at in self._chunks(look):
            for number, one in enumerate(expected):
                if not probed:
                    one.probe(items[:PROBED_ROWS], at)
                self._add_items(number, one, items, at)
            probed = True
        self._units += look.read_units

    def _chunks(self, look: FirstLook) -> Iterator[tuple[list[ScannedItem], datetime]]:
        items: list[ScannedItem] = []
        size_bytes = 0
        for page in look.pages():
            self._first_at = min(filter(None, (self._first_at, page.at)))
            self._last_at = max(filter(None, (self._last_at, page.at)))
            items += page.items
            size_bytes += sum(item.size_bytes for item in page.items)
            if len(items) >= CHUNK_ITEMS or size_bytes >= CHUNK_BYTES:
                yield items, page.at
                items, size_bytes = [], 0
        if items and self._last_at is not None:
            yield items, self._last_at

    def _add_items(
        self, number: int, one: ExpectedRows, items: Sequence[ScannedItem], at: datetime
    ) -> None:
        keys = key_column(pa.chunked_array([pa.array([item.keys for item in items], pa.string())]))
        scanned = pa.table(
            {
                KEY: keys[0],
                ROWS: pa.repeat(pa.scalar(0, pa.int64()), len(items)),
                HASH: pa.repeat(pa.scalar(0, pa.uint64()), len(items)),
            }
        )
        for output, expected in one.of_items(items, at).items():
            side = _side("items", number, one, output)
            without = one.datasets[output].not_compared
            self.hashes.add(side, self.hashes.of(expected.rows, without))
            # Items without rows are known, too: a sample must not take theirs for not scanned.
            self.hashes.add(side, scanned)

    def _compared(
        self, number: int, one: ExpectedRows, catching_up: CatchingUp, bucket: TokenBucket
    ) -> list[DatasetAudit]:
        candidates: dict[str, list[str]] = {}
        results: dict[str, DatasetAudit] = {}
        for output, comparable in one.datasets.items():
            if comparable.depends_on_record:
                self._skipped[comparable.dataset.id] = DEPENDS_ON_THE_RECORD
            else:
                results[output], candidates[output] = self._differing(number, one, output)
        second = SecondLook(
            self.source.name,
            self.layout,
            self.client,
            self.key_names,
            one,
            self.hashes,
            catching_up,
            bucket,
            self.until,
            self.settings,
            self.logger,
        )
        results = second.run(candidates, results)
        self._units += second.read_units
        for output, comparable in one.datasets.items():
            if output in results and comparable.depends_on_record:
                self._skipped[comparable.dataset.id] = DEPENDS_ON_THE_RECORD
                del results[output]
        return [
            replace(
                result, not_compared={**result.not_compared, **one.datasets[output].not_compared}
            )
            for output, result in results.items()
        ]

    def _differing(
        self, number: int, one: ExpectedRows, output: str
    ) -> tuple[DatasetAudit, list[str]]:
        """Compare the scanned items with the rows of a dataset; return the keys that differ."""
        comparable = one.datasets[output]
        dataset_id = comparable.dataset.id
        items, rows = (_side(name, number, one, output) for name in ("items", "rows"))
        shown = ShownDataset(self.layout, self.source.name, dataset_id)
        known = payload_names(shown.schema)
        columns = [name for name in known if name in comparable.columns]
        sampled, most = self.settings.sample < 1, self.settings.most_looked_at
        wanted = self.hashes.keys(items) if sampled else None
        unkeyed = self._add_rows(rows, shown, columns, comparable.not_compared, wanted)
        scanned, _ = self.hashes.totals(items)
        _, row_count = self.hashes.totals(rows)
        result = DatasetAudit(
            dataset_id,
            items=scanned,
            rows=row_count,
            not_compared={name: NOT_RETURNED for name in known if name not in columns},
        )
        for _ in range(unkeyed):
            result = result.differing(EXTRA, NO_KEY, self.settings.examples)
        keys = self.hashes.differing(items, rows, only_left=sampled, most=most)
        more = self.hashes.count_differing(items, rows, only_left=sampled) - len(keys)
        result = result.undecided_for(TOO_MANY, more)
        if sampled:
            share, seed = self.settings.sample, self.settings.seed
            keys += self.hashes.drawn(rows, items, share, seed, most)
        return replace(result, looked_again=len(keys)), keys

    def _add_rows(
        self,
        side: str,
        shown: ShownDataset,
        columns: Collection[str],
        without: Collection[str],
        wanted: pa.Array | None,
    ) -> int:
        """Store the fingerprints of a dataset's rows; return the number of rows without a key.

        Of rows with other keys than the wanted ones, only the key counts.
        """
        unkeyed = 0
        pending: list[pa.RecordBatch] = []

        def flush() -> None:
            table = pa.Table.from_batches(pending)
            if wanted is not None:
                is_wanted = pc.is_in(table[KEY], wanted)
                others = table.select([KEY]).filter(pc.invert(is_wanted))
                self.hashes.add(side, self.hashes.of(others))
                table = table.filter(is_wanted)
            self.hashes.add(side, self.hashes.of(table, without))
            pending.clear()

        for batch in shown.batches([name for name in columns if name not in without]):
            require_time(self.until)
            nulls = batch.column(0).null_count
            unkeyed += nulls
            pending.append(batch.filter(pc.is_valid(batch.column(0))) if nulls else batch)
            if sum(map(len, pending)) >= COMPARED_ROWS or _bytes(pending) >= CHUNK_BYTES:
                flush()
        if pending:
            flush()
        return unkeyed


def _bytes(batches: Sequence[pa.RecordBatch]) -> int:
    return sum(batch.nbytes for batch in batches)


def _side(name: str, number: int, one: ExpectedRows, output: str) -> str:
    return f"{name}_{number}_{list(one.datasets).index(output)}"
