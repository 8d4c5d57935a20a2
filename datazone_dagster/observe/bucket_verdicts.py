"""Verdicts of a check whose runs see the rows of one bucket each: which of them stand. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from datazone_dagster.model.key_bucket import WHOLE, KeyBucket, bucket_named
from datazone_dagster.observe.level import Level
from datazone_dagster.observe.metadata import Plain
from datazone_dagster.text import shown

BUCKET = "bucket"
"""Metadata of an evaluation: the bucket of its run."""

FAILING = "failing_buckets"
"""Metadata of an evaluation: every bucket that fails, with what its last run said, as JSON."""

_REASON_CHARS = 300
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the run of a bucket said of a check that fails; `facts` has the numbers."""

    level: Level
    reason: str
    facts: Mapping[str, Plain] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BucketReport:
    """One evaluation.

    Args:
        bucket: Bucket of its run.
        failing: Verdicts of the buckets that fail as far as that run knew, its own among them.
    """

    bucket: KeyBucket
    failing: Mapping[KeyBucket, Verdict]


def report_in(metadata: Mapping[str, object]) -> BucketReport:
    """Return the report of an evaluation; one that names no bucket is of all keys, and passes.

    A dataset without buckets, or an earlier version of the library, made it.
    """
    bucket = bucket_named(str(metadata.get(BUCKET, "")))
    if bucket is None:
        return BucketReport(WHOLE, {})
    failing = {}
    for name, (level, reason, facts) in json.loads(str(metadata.get(FAILING) or "{}")).items():
        of = bucket_named(name)
        if of is not None:
            failing[of] = Verdict(Level(level), reason, facts)
    return BucketReport(bucket, failing)


def facts_of(metadata: Mapping[str, object], bucket: KeyBucket) -> Mapping[str, Plain]:
    """Return the numbers that an evaluation keeps of a bucket that fails; empty if it does not."""
    verdict = report_in(metadata).failing.get(bucket)
    return {} if verdict is None else verdict.facts


def failing_to_json(failing: Mapping[KeyBucket, Verdict]) -> str:
    """Return verdicts as JSON."""
    return json.dumps(
        {
            bucket.name: [one.level.value, shown(one.reason, _REASON_CHARS), dict(one.facts)]
            for bucket, one in failing.items()
        }
    )


def standing(reports: Sequence[BucketReport]) -> dict[KeyBucket, Verdict]:
    """Return the verdicts that stand: those of which some keys have no later report.

    Two runs that report at once do not know of each other: so each bucket's own reports count
    first, and what the newest one says of others only where there is none.

    Args:
        reports: Reports, newest first.
    """
    found: dict[KeyBucket, Verdict] = {}
    reported = set[int]()

    def stands(bucket: KeyBucket) -> bool:
        return not set(_slots(bucket)) <= reported

    for report in reports:
        own = report.failing.get(report.bucket)
        if own is not None and stands(report.bucket):
            found[report.bucket] = own
        reported.update(_slots(report.bucket))
    for report in reports[:2]:  # the first one is being made
        for bucket, verdict in report.failing.items():
            if stands(bucket):
                found.setdefault(bucket, verdict)
    return dict(sorted(found.items(), key=lambda one: (one[0].first_slot, one[0].of)))


def reason_of(failing: Mapping[KeyBucket, Verdict]) -> str:
    """Return the text of a check that some buckets fail."""
    texts = [f"Bucket {bucket.name}: {one.reason}" for bucket, one in failing.items()]
    more = f" And {len(texts) - _NAMED} more buckets." if len(texts) > _NAMED else ""
    return " ".join(texts[:_NAMED]) + more


def _slots(bucket: KeyBucket) -> range:
    return range(bucket.first_slot, bucket.last_slot + 1)
