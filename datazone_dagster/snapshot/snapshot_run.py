"""A run of a snapshot: takes the steps that are possible now, and says what it waits for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import replace

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.changelog.current_checkpoint import up_to_date
from datazone_dagster.changelog.gap_acceptance import repair_gaps
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.mask_salt import check_salt
from datazone_dagster.changelog.scan_log import ScanLog
from datazone_dagster.dataset.source_datasets import datasets_of_source
from datazone_dagster.errors import ConcurrentWriterError, SnapshotError
from datazone_dagster.items.masking import Masks
from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.snapshot_report import SnapshotReport, report_of
from datazone_dagster.model.snapshot_state import (
    Phase,
    SnapshotState,
    announced,
    caught_up,
    done,
    scan_started,
    wanted,
)
from datazone_dagster.model.table_scan import TableClient
from datazone_dagster.process import crash_points
from datazone_dagster.snapshot.announce import announce
from datazone_dagster.snapshot.export_step import exports_begun, with_exports
from datazone_dagster.snapshot.export_table import ExportedTable
from datazone_dagster.snapshot.next_step import Action, Facts, Step, next_step
from datazone_dagster.snapshot.rate import TokenBucket, units_per_second
from datazone_dagster.snapshot.scan import Scan, Until, segments_for
from datazone_dagster.snapshot.scanned_records import ScannedRecords, hides_keys
from datazone_dagster.snapshot.snapshot_settings import SnapshotSettings
from datazone_dagster.snapshot.sweep import Sweeping

CONSISTENT_READS = True
"""An eventually consistent page may be older than a write that was drained before the announcement.
Its row would win over that write for good, bring a deleted item back, or have a live one swept."""

OnProgress = Callable[[SnapshotReport], None]


class SnapshotRun:
    """One run of the snapshot of one source."""

    def __init__(
        self,
        source: DynamoDBSource,
        layout: Layout,
        client: TableClient,
        *,
        dataset_ids: Collection[str],
        settings: SnapshotSettings,
        until: Until,
        clock: Clock,
        on_progress: OnProgress | None,
        logger: logging.Logger,
        exports: ExportedTable | None = None,
    ) -> None:
        self._exports = exports
        self._source = source
        self._layout = layout
        self._client = client
        self._dataset_ids = dataset_ids
        self._settings = settings
        self._until = until
        self._clock = clock
        self._on_progress = on_progress
        self._logger = logger
        self._change_log = ChangeLog(layout, source)
        self._scan_log = ScanLog(self._change_log)
        self._description = client.describe_table()
        limit = units_per_second(self._description, source.snapshot_rcu)
        self._bucket = TokenBucket(limit, until.monotonic())
        self._scan_began: tuple[float, float] | None = None
        self._began_again = ""

    def run(self) -> SnapshotReport:
        """Take every step that is possible now."""
        while True:
            self._scan_log.refresh()
            state = self._scan_log.state
            facts = self._facts(state)
            step = next_step(state, facts)
            if state is None:
                raise _no_snapshot(self._source.name)
            step = with_exports(step, state, self._exports)
            self._report(state, step.why if step.action is Action.WAIT else "")
            if state.phase is Phase.DONE:
                repair_gaps(self._source.name, self._layout, state, clock=self._clock)
            if step.action in (Action.NOTHING, Action.WAIT):
                return self._reported(state, step.why)
            if self._until.reached() and step.action in (Action.SCAN, Action.SWEEP):
                return self._reported(state, "")
            try:
                self._take(step, state, facts)
            except ConcurrentWriterError as error:
                self._logger.info("Snapshot of %s: %s", self._source.name, error)
                return self._reported(state, "the process that takes this snapshot already")

    def _take(self, step: Step, state: SnapshotState, facts: Facts) -> None:
        action = step.action
        if action is Action.ANNOUNCE:
            self._announce(step.why)
        elif action is Action.START_SCAN:
            self._start_scan(state)
        elif action is Action.SCAN:
            self._scan(state)
        elif action is Action.MARK_CAUGHT_UP:
            # Not the head of the scan log: what landed since it was read counts as passed, too.
            self._move(state, caught_up(state, facts.checkpoint.batch))
        else:
            self._sweep(state)

    def _facts(self, state: SnapshotState | None) -> Facts:
        saved = CheckpointTable(self._layout, self._source.name).open()
        log = self._change_log.open()
        assert log is not None  # the scan log is its table
        masks = Masks.of(self._source)
        check_salt(self._source.name, log, None if masks is None else masks.salt_fingerprint)
        checkpoint = up_to_date(
            Checkpoint() if saved is None else saved.checkpoint, log, self._clock()
        )
        positions: dict[str, int] = {}
        if state is not None and state.phase is Phase.SCANNED:
            positions = dict.fromkeys(self._dataset_ids, 0)
            positions |= datasets_of_source(self._source.name, self._layout)
        return Facts(checkpoint, positions, self._description.table_id or "")

    def _announce(self, why: str) -> None:
        if why:
            self._began_again = why
            self._logger.warning("The snapshot of %s begins again: %s.", self._source.name, why)
        now, served_at = self._clock(), self._client.describe_table().served_at

        def to(state: SnapshotState | None, checkpoint: Checkpoint) -> SnapshotState:
            return announced(
                state or wanted("start"),
                epoch=checkpoint.epoch + 1,
                at=now,
                consistent_reads=CONSISTENT_READS,
                table_id=self._description.table_id or "",
                served_at=served_at,
            )

        announce(self._source, self._layout, now, to)

    def _start_scan(self, state: SnapshotState) -> None:
        if self._exports is not None:
            self._move(state, exports_begun(state, self._exports, self._clock()))
            return
        segments = segments_for(
            self._description.size_bytes, self._settings.workers, hide_keys=self._hides_keys
        )
        self._move(state, scan_started(state, segments=segments, at=self._clock()))

    def _scan(self, state: SnapshotState) -> None:
        self._scan_began = self._scan_began or (self._until.monotonic(), state.read_units)
        if self._exports is not None:
            self._exports.require_fit(state)
        Scan(
            client=self._exports or self._client,
            scan_log=self._scan_log,
            records=self._records(state),
            bucket=self._bucket,
            workers=self._settings.workers,
            hide_keys=self._hides_keys and self._exports is None,
            on_commit=lambda reached: self._report(reached, ""),
            logger=self._logger,
        ).run(state, self._until)

    def _sweep(self, state: SnapshotState) -> None:
        positions = datasets_of_source(self._source.name, self._layout)
        sweeping = Sweeping(
            source_name=self._source.name,
            dataset_ids=sorted(positions),
            layout=self._layout,
            client=self._client,
            scan_log=self._scan_log,
            records=self._records(state),
            bucket=self._bucket,
            limit=self._settings.sweep_limit,
            keys_are_masked=self._hides_keys,
            now=self._clock,
            changed_since=state.exported_from,
        )
        reached, complete = sweeping.run(state, self._until)
        if complete:
            self._move(reached, done(reached, self._clock()))

    def _move(self, before: SnapshotState, after: SnapshotState) -> None:
        self._scan_log.move(before, after)
        crash_points.reach(crash_points.AFTER_SNAPSHOT_STATE)

    def _records(self, state: SnapshotState) -> ScannedRecords:
        return ScannedRecords(self._source, state.epoch, self._description.table_arn)

    @property
    def _hides_keys(self) -> bool:
        """Whether a key attribute is masked: then keys are stored nowhere as they are."""
        return hides_keys(self._source, self._description.key_names)

    def _report(self, state: SnapshotState, waits_for: str) -> None:
        if self._on_progress is not None:
            self._on_progress(self._reported(state, waits_for))

    def _reported(self, state: SnapshotState, waits_for: str) -> SnapshotReport:
        rate: float | None = None
        if self._scan_began is not None:
            began, units = self._scan_began
            seconds = self._until.monotonic() - began
            rate = (state.read_units - units) / seconds if seconds > 0 else None
        return replace(
            report_of(self._source.name, state),
            item_count=self._description.item_count,
            table_bytes=self._description.size_bytes,
            limit_units_per_second=self._bucket.units_per_second,
            rate_units_per_second=rate or None,
            waits_for=waits_for,
            began_again=self._began_again,
        )


def _no_snapshot(source_name: str) -> SnapshotError:
    return SnapshotError(
        f"Source {source_name!r} has no snapshot: its change log was begun without one.",
        safe="Nothing was read or written.",
        hint="Ask for one first: a resync takes a snapshot of a source that already runs.",
    )
