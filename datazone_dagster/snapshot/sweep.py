"""The sweep: keys that datasets still have and that neither scan nor stream has shown.

Keys of older changes in a quarantine count, too: a redrive would bring their rows back.

They were deleted while nobody listened. Each is confirmed by a consistent read before it becomes
a delete, with the version of a scanned row: any change of the epoch wins over it. A key that the
table does have lands as a scanned row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from datazone_dagster.changelog.scan_log import ScanLog
from datazone_dagster.dataset.stale_keys import count_stale, quarantined_keys, stale_keys
from datazone_dagster.errors import SnapshotError
from datazone_dagster.items.keys import key_column, keys_json
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.snapshot_state import SnapshotState, swept
from datazone_dagster.model.table_scan import ScannedItem, TableClient
from datazone_dagster.process import crash_points
from datazone_dagster.snapshot.rate import TokenBucket
from datazone_dagster.snapshot.scan import Until
from datazone_dagster.snapshot.scanned_records import ScannedRecords

KEYS_PER_COMMIT = 500
KEYS_PER_PASS = 50_000
"""Keys that one pass over a dataset finds: those in memory."""


@dataclass(frozen=True, slots=True)
class Sweeping:
    """The sweep of one snapshot.

    Args:
        source_name: Name of the source.
        dataset_ids: Datasets of the source.
        layout: Locations of the tables.
        client: Client of the table.
        scan_log: The change log.
        records: Makes the records.
        bucket: Rate of the reads.
        limit: Share of a dataset's rows that the sweep may delete without asking, 0 to 1.
        keys_are_masked: Whether the datasets have hashes in place of keys.
        now: Clock; deletes get a time, as no page has told one.
        changed_since: Time before which rows were last changed that are not asked for; None: all
            are. Incremental exports show no item that was inserted and deleted within a window.
    """

    source_name: str
    dataset_ids: Sequence[str]
    layout: Layout
    client: TableClient
    scan_log: ScanLog
    records: ScannedRecords
    bucket: TokenBucket
    limit: float
    keys_are_masked: bool
    now: Clock
    changed_since: datetime | None = None

    def run(self, state: SnapshotState, until: Until) -> tuple[SnapshotState, bool]:
        """Sweep; return the state reached, and whether no key is left.

        Raises:
            SnapshotError: Too large a share of a dataset would go, or keys can't be confirmed.
            SourceError: The table can't be read.
            ConcurrentWriterError: Another process sweeps, too.
            StorageError: The lakehouse can't be read or written.
        """
        if not state.swept_through:
            self._check(state)
        for keys, rowless in self._groups(state):
            while self.bucket.wait_seconds(until.monotonic()):
                if until.reached():
                    return state, False
                until.pause(min(1.0, self.bucket.wait_seconds(until.monotonic())))
            if until.reached():
                return state, False
            state = self._swept(state, keys, rowless, until)
        return state, True

    def _check(self, state: SnapshotState) -> None:
        """Count the keys before the first of them is deleted."""
        for dataset_id in self.dataset_ids:
            stale = count_stale(
                self.source_name,
                dataset_id,
                self.layout,
                state.epoch,
                changed_since=self.changed_since,
            )
            if stale.keys and self.keys_are_masked:
                raise _unconfirmed(dataset_id, stale.keys)
            if stale.keys > self.limit * stale.rows:
                raise _too_many(dataset_id, stale.keys, stale.rows, self.limit)

    def _groups(self, state: SnapshotState) -> Iterator[tuple[list[str], set[str]]]:
        """Yield canonical keys, and those among them that only a quarantine has."""
        after = state.swept_through
        while True:
            found: set[str] = set()
            rowless = self._quarantined(state.epoch, after)
            for dataset_id in self.dataset_ids:
                found.update(
                    stale_keys(
                        self.source_name,
                        dataset_id,
                        self.layout,
                        state.epoch,
                        after=after,
                        most=KEYS_PER_PASS,
                        changed_since=self.changed_since,
                    )
                )
            rowless -= found
            keys = sorted(found | rowless)[:KEYS_PER_PASS]
            if not keys:
                return
            for start in range(0, len(keys), KEYS_PER_COMMIT):
                yield keys[start : start + KEYS_PER_COMMIT], rowless
            after = keys[-1]

    def _quarantined(self, epoch: int, after: str) -> set[str]:
        """Return the first keys, in order, of older changes that wait to be redriven."""
        if self.keys_are_masked:
            return set()
        found: set[str] = set()
        for dataset_id in self.dataset_ids:
            keys = quarantined_keys(self.source_name, dataset_id, self.layout, epoch)
            canonical, _ = key_column(keys)
            found.update(key for key in canonical.to_pylist() if key is not None and key > after)
        return set(sorted(found)[:KEYS_PER_PASS])

    def _swept(
        self, state: SnapshotState, keys: list[str], rowless: set[str], until: Until
    ) -> SnapshotState:
        texts = [keys_json(key) for key in keys]
        taken = self.bucket.start(until.monotonic())
        images = self.client.get_items(texts)
        units = len(texts) + sum(len(image) // 4096 for image in images.values())
        self.bucket.finish(taken, float(units), until.monotonic())
        present = [
            ScannedItem(text, images[text], len(images[text].encode()))
            for key, text in zip(keys, texts, strict=True)
            if text in images and key not in rowless  # the scan has shown it
        ]
        absent = [text for text in texts if text not in images]
        after = swept(state, deleted=len(absent), present=len(present), through=keys[-1])
        at = max(self.now(), state.scanned_at or self.now())
        crash_points.reach(crash_points.AFTER_PAGES_READ)
        self.scan_log.land(
            state, after, [self.records.absent(absent, at), self.records.present(present, at)]
        )
        crash_points.reach(crash_points.AFTER_SCAN_COMMIT)
        reached = self.scan_log.state
        assert reached is not None
        return reached


def _too_many(dataset_id: str, keys: int, rows: int, limit: float) -> SnapshotError:
    return SnapshotError(
        f"The snapshot would delete up to {keys:,} of {rows:,} rows of dataset {dataset_id!r}: "
        "the table does not seem to have their keys any more. Without asking, it deletes at most "
        f"{limit:.0%} of a dataset.",
        safe="Nothing was deleted; everything that was scanned is landed.",
        hint="If these items were deleted, continue the snapshot with a higher sweep_limit (1.0: "
        "all rows). If they were not, the source may read another table than it did.",
    )


def _unconfirmed(dataset_id: str, keys: int) -> SnapshotError:
    return SnapshotError(
        f"{keys:,} rows of dataset {dataset_id!r} were shown neither by the scan nor by the "
        "stream. The table can't be asked for them: their keys are hashed by the source's mask.",
        safe="Nothing was deleted; everything that was scanned is landed.",
        hint="Give the dataset a new id, so that it starts from this snapshot, or remove those "
        "rows yourself: their _dz_version is below the epoch of the snapshot.",
    )
