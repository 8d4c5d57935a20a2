"""Reports of drains and applies: plain facts for metadata, checks and logs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from datazone_dagster.model.arrival import Arrival
from datazone_dagster.model.scan_facts import ScanFacts
from datazone_dagster.model.set_state import SetState
from datazone_dagster.model.shard_tree import ShardNode
from datazone_dagster.model.snapshot_base import SnapshotBase
from datazone_dagster.model.snapshot_report import SnapshotReport
from datazone_dagster.model.table_commit import TableCommit


@dataclass(frozen=True, slots=True)
class Gap:
    """Records that the service trimmed before they were landed (invariant 5)."""

    stream_arn: str
    shard_id: str
    reason: str
    after_sequence_number: int | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def missing_seconds(self) -> float | None:
        """Length of the time span in which changes may be missing; None if unknown."""
        if self.since is None or self.until is None:
            return None
        return max(0.0, (self.until - self.since).total_seconds())


@dataclass(frozen=True, slots=True)
class DrainReport:
    """One drain of one source.

    `batch` is the last of `batches` that this drain committed, None if there was nothing to land or
    another drain committed first (`lost_race`). `caught_up` means that the last read of every
    readable shard reached its latest position, in this drain or, for quiet shards, up to
    `latest_age_seconds` before. No unread change is older than `oldest_unread_at`; the drain began
    at `began_at`, by the same clock, that of the service. Times are UTC.
    `undated` counts records without a time: theirs is that of the drain. `snapshot` is the last
    one of the source, None without one. `shards` are the unfinished ones and their parents.
    `sets` are those that drain runs read; empty where the sensor reads all shards. The service did
    not know the `shards_unknown`, although they were listed as open. `table_unchecked`: it refused
    to list the streams, which tells for sure whether the table is that of the change log.
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
    began_at: datetime | None = None
    undated: int = 0
    arrival: Arrival = field(default_factory=Arrival)
    snapshot: SnapshotReport | None = None
    shards: tuple[ShardNode, ...] = ()
    sets: tuple[SetState, ...] = ()
    shards_unknown: tuple[str, ...] = ()
    table_unchecked: bool = False

    def then(self, later: DrainReport) -> DrainReport:
        """Combine this report with that of the next drain: sums of both, the state of the later."""
        return replace(
            later,
            batch=later.batch if later.batch is not None else self.batch,
            batches=self.batches + later.batches,
            records=self.records + later.records,
            record_bytes=self.record_bytes + later.record_bytes,
            malformed=self.malformed + later.malformed,
            undated=self.undated + later.undated,
            arrival=self.arrival.then(later.arrival),
            get_records_calls=self.get_records_calls + later.get_records_calls,
            event_time_min=_first(min, self.event_time_min, later.event_time_min),
            event_time_max=_first(max, self.event_time_max, later.event_time_max),
            log_version=self.log_version if later.log_version is None else later.log_version,
            duration_seconds=self.duration_seconds + later.duration_seconds,
            table_unchecked=self.table_unchecked or later.table_unchecked,
        )


def _first(order: Callable[..., datetime], *times: datetime | None) -> datetime | None:
    known = list(filter(None, times))
    return order(known) if known else None


@dataclass(frozen=True, slots=True)
class MergeCounts:
    """Rows that a merge changed in a dataset."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0

    def __add__(self, other: MergeCounts) -> MergeCounts:
        """Return the sums of both."""
        return MergeCounts(
            self.inserted + other.inserted,
            self.updated + other.updated,
            self.deleted + other.deleted,
        )


@dataclass(frozen=True, slots=True)
class DeleteCounts:
    """Deletes that a user may expect to have another effect.

    Args:
        filtered: Deletes for which the function returned no row; they removed the rows of their
            keys all the same.
        filtered_by_ttl: Deletes by time to live among `filtered`.
        ttl_ignored: Deletes by time to live that had no effect (`ttl_deletes="ignore"`).
    """

    filtered: int = 0
    filtered_by_ttl: int = 0
    ttl_ignored: int = 0

    def __add__(self, other: DeleteCounts) -> DeleteCounts:
        """Return the sums of both."""
        return DeleteCounts(
            self.filtered + other.filtered,
            self.filtered_by_ttl + other.filtered_by_ttl,
            self.ttl_ignored + other.ttl_ignored,
        )


@dataclass(frozen=True, slots=True)
class MaintenanceReport:
    """Maintenance of a dataset's table, and the state of the table after it.

    `hidden_rows` are still in data files, hidden by deletion vectors; `rows_dropped` were so
    before. `lost_race` means that another commit came first; the rest waits for the next time.
    `uploads_aborted` are multipart uploads that killed processes left anywhere in the lakehouse;
    `uploads_refused` is the code of a store that did not let us look for them, or else empty.
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
    uploads_aborted: int = 0
    uploads_refused: str = ""

    @property
    def did(self) -> str:
        """Summary of the work done in words; empty if nothing was due."""
        actions = {
            f"joined {self.files_joined} files": self.files_joined,
            f"dropped {self.rows_dropped} hidden rows": self.rows_dropped,
            "made a checkpoint": self.checkpoint,
            f"deleted {self.files_deleted} old files": self.files_deleted,
            "lost the commit race": self.lost_race,
            f"aborted {self.uploads_aborted} unfinished uploads": self.uploads_aborted,
            "could not look for unfinished uploads, which cost money: the store answered "
            f"{self.uploads_refused}": self.uploads_refused,
        }
        return ", ".join(text for text, done in actions.items() if done)


@dataclass(frozen=True, slots=True)
class PathMismatch:
    """Changes that a path of the function gave null for, because their value has another type.

    Args:
        path: The path as a user writes it.
        attribute: Attribute of another type, on the way down the path.
        descriptor: Descriptor that the attribute has.
        changes: Number of changes.
    """

    path: str
    attribute: str
    descriptor: str
    changes: int


@dataclass(frozen=True, slots=True)
class RuleCount:
    """Rows that were checked against an expectation of their dataset.

    Args:
        rule: Name of the expectation.
        rows: Rows that were checked: those to be written, without those of deletes.
        violations: Rows among them that violate it.
        example_key: Key of one of these; None if there is none.
        missing: Columns that its condition names and the last rows did not have.
        columns: The columns that there are, if some are missing.
    """

    rule: str
    rows: int = 0
    violations: int = 0
    example_key: str | None = None
    missing: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def __add__(self, later: RuleCount) -> RuleCount:
        """Return the sums of both; the example is of the earlier, what is missing of the later."""
        last = later if later.rows else self
        return RuleCount(
            self.rule,
            self.rows + later.rows,
            self.violations + later.violations,
            self.example_key or later.example_key,
            last.missing,
            last.columns,
        )


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """Result of one run for one dataset, over all its chunks.

    `position` and `head` are batch numbers: equal when nothing is left to apply.
    `preview` holds a few of the last written rows, `columns` the name and type of each column;
    `unexpected_columns` (name, type, first batch) are the columns that the contract rejects.
    `sibling_values` counts the values of `items()` in each sibling column of the written rows: they
    did not fit the column of their attribute.
    `mismatches` counts the changes with values of another type than the function's paths read,
    quarantined ones included. `unfound_paths` are paths whose attribute no record ever had, each
    with the number of records. `lacks_old_images` means that the function reads the old image and
    that the stream's view type has none.
    `rows_hidden` counts rows hidden by deletion vectors, which `row_count` excludes.
    `setting_ignored` describes a setting of the dataset that its table does not follow.
    `lookups` (dataset id, first and last version) are the tables that the function looked up.
    `scan` is the scan of the table that the rows are from; None for those of a stream.
    `start` is the snapshot that the dataset begins with; None: it begins with the first change.
    `sources` are the paths and fields of the stream record that each column is from, where known.
    `expectations` counts the rows that were checked against each expectation.
    `history` has the newest commits of the table, as far as the process has seen them.
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
    sibling_values: tuple[tuple[str, int], ...] = ()
    mismatches: tuple[PathMismatch, ...] = ()
    unfound_paths: tuple[tuple[str, int], ...] = ()
    lacks_old_images: bool = False
    unexpected_columns: tuple[tuple[str, str, int], ...] = ()
    preview: tuple[dict[str, object], ...] = ()
    deletion_vectors: bool = False
    rows_hidden: int = 0
    files: int = 0
    size_bytes: int = 0
    maintenance: MaintenanceReport | None = None
    setting_ignored: str | None = None
    deletes: DeleteCounts = DeleteCounts()
    lookups: tuple[tuple[str, int, int], ...] = ()
    scan: ScanFacts | None = None
    start: SnapshotBase | None = None
    sources: tuple[tuple[str, tuple[str, ...]], ...] = ()
    history: tuple[TableCommit, ...] = ()
    expectations: tuple[RuleCount, ...] = ()

    def at_its_position(self) -> ApplyReport:
        """Return a report of the same dataset and position in which nothing was applied yet."""
        return ApplyReport(self.dataset_id, self.source, self.uri, self.position, self.head)


@dataclass(frozen=True, slots=True)
class KeyReport:
    """Keys of a dataset, and those that have rows of several changes where one is expected.

    Args:
        rows: Rows that show the items as they are; above `limit_rows` nothing else is known.
        limit_rows: Most rows that are read.
        keys: Number of keys.
        doubled: Keys with rows of several changes.
        several_rows: Keys with several rows, of one change or several.
        example_key: One of the keys with rows of several changes; None if there is none.
    """

    rows: int
    limit_rows: int
    keys: int = 0
    doubled: int = 0
    several_rows: int = 0
    example_key: str | None = None


@dataclass(frozen=True, slots=True)
class RedriveReport:
    """Result of one redrive of one dataset.

    Args:
        dataset_id: Id of the dataset.
        redriven: Number of records applied again. A row that was newer stayed as it was.
        counts: Rows that these records changed.
        waiting: Number of records that are in the quarantine now.
        reasons: The reasons, each with its number of records.
        keys: For each reason the first keys, as DynamoDB JSON; fewer than its records.
        sibling_values: As in `ApplyReport`, for the records of this redrive.
        mismatches: As in `ApplyReport`, for the records of this redrive.
        expectations: As in `ApplyReport`, for the records of this redrive.
    """

    dataset_id: str
    redriven: int = 0
    counts: MergeCounts = MergeCounts()
    waiting: int = 0
    reasons: tuple[tuple[str, int], ...] = ()
    keys: tuple[tuple[str, ...], ...] = ()
    sibling_values: tuple[tuple[str, int], ...] = ()
    mismatches: tuple[PathMismatch, ...] = ()
    expectations: tuple[RuleCount, ...] = ()


@dataclass(frozen=True, slots=True)
class ChunkReport:
    """One applied chunk: progress of a run."""

    transform: str
    first_batch: int
    last_batch: int
    head: int
    records: int
    counts: MergeCounts
    duration_seconds: float


@dataclass(frozen=True, slots=True)
class FlowCounts:
    """Counts of one source and one of its datasets.

    Args:
        landed: Records in the change log.
        applied: Records of the change log that the dataset has applied.
        rows: Rows of the dataset.
    """

    landed: int
    applied: int
    rows: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """Changes that a dataset still has to apply."""

    head_batch: int
    position: int
    oldest_unapplied_event_time: datetime | None
    records: int = 0

    @property
    def pending(self) -> bool:
        """Whether batches are waiting."""
        return self.head_batch > self.position
