"""What a drain and an apply tell about themselves: plain facts, for metadata, checks and logs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Gap:
    """Records that the service no longer has and that were never landed (invariant 5)."""

    stream_arn: str
    shard_id: str
    reason: str
    after_sequence_number: int | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def missing_seconds(self) -> float | None:
        """How long the time is from which changes may be missing; None if nobody knows."""
        if self.since is None or self.until is None:
            return None
        return max(0.0, (self.until - self.since).total_seconds())


@dataclass(frozen=True, slots=True)
class DrainReport:
    """One drain of one source.

    `batch` is the last batch that this drain committed, None if there was nothing to land or
    another drain came first (`lost_race`); `batches` is how many it committed. `caught_up`
    means that every readable shard was at its tip when it was asked last: within this drain,
    or up to `latest_age_seconds` before its end, for shards that are quiet. What is not read yet
    is no older than `oldest_unread_at`; None if nothing is known to wait. Times are UTC.
    """

    source: str
    stream_arn: str
    batch: int | None
    head_batch: int
    records: int
    record_bytes: int
    malformed: int
    get_records_calls: int
    shards_open: int
    shards_unfinished: int
    caught_up: bool
    lost_race: bool
    event_time_min: datetime | None
    event_time_max: datetime | None
    log_version: int | None
    duration_seconds: float
    shard_errors: tuple[tuple[str, str], ...] = ()
    gaps: tuple[Gap, ...] = ()
    batches: int = 0
    latest_age_seconds: float = 0.0
    oldest_unread_at: datetime | None = None

    def then(self, later: DrainReport) -> DrainReport:
        """This drain and the one after it as one: sums of both, the state of the later."""
        return replace(
            later,
            batch=later.batch if later.batch is not None else self.batch,
            batches=self.batches + later.batches,
            records=self.records + later.records,
            record_bytes=self.record_bytes + later.record_bytes,
            malformed=self.malformed + later.malformed,
            get_records_calls=self.get_records_calls + later.get_records_calls,
            event_time_min=_first(min, self.event_time_min, later.event_time_min),
            event_time_max=_first(max, self.event_time_max, later.event_time_max),
            log_version=self.log_version if later.log_version is None else later.log_version,
            duration_seconds=self.duration_seconds + later.duration_seconds,
        )


def _first(
    order: Callable[[Iterable[datetime]], datetime], *times: datetime | None
) -> datetime | None:
    known = [time for time in times if time is not None]
    return order(known) if known else None


@dataclass(frozen=True, slots=True)
class MergeCounts:
    """What a merge changed in a dataset."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0

    def __add__(self, other: MergeCounts) -> MergeCounts:
        """Both together."""
        return MergeCounts(
            self.inserted + other.inserted,
            self.updated + other.updated,
            self.deleted + other.deleted,
        )


@dataclass(frozen=True, slots=True)
class MaintenanceReport:
    """What maintenance did to a dataset's table, and what the table is after it.

    `hidden_rows` still stand in files, under deletion vectors; `rows_dropped` did so before.
    `lost_race` means that another commit came first, and the rest was left for another time.
    """

    files: int
    size_bytes: int
    rows: int
    hidden_rows: int
    files_joined: int = 0
    files_written: int = 0
    rows_dropped: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    checkpoint: bool = False
    files_deleted: int = 0
    lost_race: bool = False
    duration_seconds: float = 0.0

    @property
    def did(self) -> str:
        """What was done, in words; empty if nothing was due."""
        parts = {
            f"joined {self.files_joined} files": self.files_joined,
            f"dropped {self.rows_dropped} hidden rows": self.rows_dropped,
            "made a checkpoint": self.checkpoint,
            f"deleted {self.files_deleted} old files": self.files_deleted,
            "gave way to another commit": self.lost_race,
        }
        return ", ".join(text for text, holds in parts.items() if holds)


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """What one run did to one dataset, over all its chunks.

    `position` and `head` are batch numbers: equal when nothing is left to apply.
    `preview` holds a few of the rows last written, `columns` name and type of the table's;
    `unexpected_columns` (name, type, first batch) are those that its contract keeps out.
    `rows_hidden` are those that deletion vectors hide from readers, not counted by `row_count`.
    `setting_ignored` says what of the dataset's declaration its table does not follow.
    """

    dataset_id: str
    source: str
    uri: str
    position: int
    head: int
    chunks: int = 0
    first_batch: int | None = None
    last_batch: int | None = None
    records: int = 0
    record_bytes: int = 0
    quarantined: int = 0
    counts: MergeCounts = MergeCounts()
    row_count: int = 0
    table_version: int | None = None
    event_time_min: datetime | None = None
    event_time_max: datetime | None = None
    duration_seconds: float = 0.0
    columns: tuple[tuple[str, str], ...] = ()
    new_columns: tuple[str, ...] = ()
    unexpected_columns: tuple[tuple[str, str, int], ...] = ()
    preview: tuple[dict[str, object], ...] = ()
    deletion_vectors: bool = False
    rows_hidden: int = 0
    files: int = 0
    size_bytes: int = 0
    maintenance: MaintenanceReport | None = None
    setting_ignored: str | None = None


@dataclass(frozen=True, slots=True)
class RedriveReport:
    """What one redrive did to one dataset.

    Args:
        dataset_id: Which.
        redriven: Records that came back. Their keys' rows changed unless newer ones were there.
        counts: What that changed.
        waiting: Records that wait in the quarantine now.
        reasons: Why, each with how many.
    """

    dataset_id: str
    redriven: int = 0
    counts: MergeCounts = MergeCounts()
    waiting: int = 0
    reasons: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ChunkReport:
    """One chunk applied: for progress while a run goes on."""

    transform: str
    first_batch: int
    last_batch: int
    head: int
    records: int
    counts: MergeCounts
    duration_seconds: float


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a dataset still has to apply."""

    head_batch: int
    position: int
    oldest_unapplied_event_time: datetime | None

    @property
    def pending(self) -> bool:
        """Whether batches wait."""
        return self.head_batch > self.position
