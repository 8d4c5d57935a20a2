"""Runs of a transform's job, asked of Dagster's database once for all buckets of its datasets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property

from dagster import DagsterRunStatus, RunRecord, RunsFilter

from datazone_dagster.dagster_glue.runs.placed_runs import PlacedRuns
from datazone_dagster.model.key_bucket import KeyBucket

PARTITION_TAG = "dagster/partition"
"""Tag by which Dagster marks the runs of a partition."""

ACTIVE = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]

_MOST_FAILURES = 500


@dataclass(frozen=True)
class JobRuns:
    """Runs of one job, by partition: one query each for those that are active, failed or recent.

    Args:
        runs: Runs of the place that asks.
        job_name: Name of the job.
        loaded_at: Time when the code location was loaded: earlier failures do not count.
        recent_since: Time since which runs are recent.
    """

    runs: PlacedRuns
    job_name: str
    loaded_at: datetime
    recent_since: datetime

    @cached_property
    def all_active(self) -> list[RunRecord]:
        """Runs that are queued, starting or started, newest first."""
        wanted = RunsFilter(job_name=self.job_name, statuses=ACTIVE)
        return self.runs.records(wanted)

    def active(self, bucket: KeyBucket) -> list[RunRecord]:
        """Return the active runs of a bucket; those of any partition, if it has all keys."""
        return self.all_active if bucket.is_whole else self._active[bucket.name]

    def may_have_failed(self, bucket: KeyBucket) -> bool:
        """Return whether a run of a bucket has failed since the code was loaded, or may have."""
        return bucket.is_whole or self._failed is None or bucket.name in self._failed

    def last_start(self, bucket: KeyBucket) -> datetime | None:
        """Return when the newest run of a bucket was requested; None if none is recent."""
        found = self._recent["" if bucket.is_whole else bucket.name]
        return found[0].create_timestamp.replace(tzinfo=timezone.utc) if found else None

    @cached_property
    def _active(self) -> defaultdict[str, list[RunRecord]]:
        return _by_partition(self.all_active)

    @cached_property
    def _failed(self) -> frozenset[str] | None:
        """Partitions with a failed run; None if there are too many to read."""
        since = self.loaded_at - timedelta(seconds=1)
        wanted = RunsFilter(
            job_name=self.job_name, statuses=[DagsterRunStatus.FAILURE], updated_after=since
        )
        failed = self.runs.records(wanted, _MOST_FAILURES)
        return None if len(failed) == _MOST_FAILURES else frozenset(_by_partition(failed))

    @cached_property
    def _recent(self) -> defaultdict[str, list[RunRecord]]:
        wanted = RunsFilter(job_name=self.job_name, created_after=self.recent_since)
        return _by_partition(self.runs.records(wanted))


def _by_partition(records: Iterable[RunRecord]) -> defaultdict[str, list[RunRecord]]:
    found = defaultdict[str, list[RunRecord]](list)
    for record in records:
        found[record.dagster_run.tags.get(PARTITION_TAG, "")].append(record)
    return found
