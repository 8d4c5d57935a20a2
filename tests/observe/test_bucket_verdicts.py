"""Verdicts of buckets: which of them stand after the reports of others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.model.key_bucket import KeyBucket, key_buckets
from datazone_dagster.observe.bucket_verdicts import (
    BUCKET,
    FAILING,
    BucketReport,
    Verdict,
    facts_of,
    failing_to_json,
    reason_of,
    report_in,
    standing,
)
from datazone_dagster.observe.level import Level

ANY_BUCKET = st.sampled_from([1, 2, 4, 8]).flatmap(lambda of: st.sampled_from(key_buckets(of)))
Run = tuple[KeyBucket, bool]
"""Bucket of a run, and whether it passes."""

BAD = Verdict(Level.WARN, "some rows", {"violations": 2})


def runs_of(buckets: st.SearchStrategy[KeyBucket]) -> st.SearchStrategy[list[Run]]:
    return st.lists(st.tuples(buckets, st.booleans()), max_size=12)


# Each report says what it knew of the others, so few of them are enough for one number of buckets.
@given(
    st.tuples(runs_of(ANY_BUCKET), st.just(100))
    | st.tuples(runs_of(st.sampled_from(key_buckets(4))), st.integers(1, 12))
)
def test_a_verdict_stands_while_some_of_its_keys_have_no_later_report(
    given_runs: tuple[list[Run], int],
) -> None:
    runs, looked_at = given_runs
    reports: list[BucketReport] = []
    for bucket, passes in runs:
        own = BucketReport(bucket, {} if passes else {bucket: BAD})
        known = reports[:looked_at]
        reports.insert(0, BucketReport(bucket, standing([own, *known])))
    expected = set[KeyBucket]()
    for at, (bucket, passes) in enumerate(runs):
        later = {
            slot for of, _ in runs[at + 1 :] for slot in range(of.first_slot, of.last_slot + 1)
        }
        slots = set(range(bucket.first_slot, bucket.last_slot + 1))
        if not passes and not slots <= later:
            expected.add(bucket)
    found = set(reports[0].failing) if reports else set()
    assert found == expected


def test_two_runs_that_report_at_once_do_not_hide_one_another() -> None:
    first, second = key_buckets(2)
    failed = BucketReport(second, {second: BAD})
    unaware = BucketReport(first, {})  # it has read the reports before that one was there
    assert set(standing([BucketReport(first, {}), unaware, failed])) == {second}
    assert standing([BucketReport(second, {}), unaware, failed]) == {}


def test_what_an_evaluation_keeps() -> None:
    bucket = KeyBucket(2, 4)
    metadata = {BUCKET: "1-of-4", FAILING: failing_to_json({bucket: BAD})}
    assert report_in(metadata) == BucketReport(KeyBucket(1, 4), {bucket: BAD})
    assert facts_of(metadata, bucket) == {"violations": 2}
    assert facts_of(metadata, KeyBucket(3, 4)) == {}
    assert report_in({}) == BucketReport(KeyBucket(1, 1), {})
    many = dict.fromkeys(key_buckets(8), BAD)
    assert reason_of(many).endswith("Bucket 5-of-8: some rows And 3 more buckets.")
