from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.model.key_bucket import (
    SLOTS,
    WHOLE,
    KeyBucket,
    applied_through,
    bucket_named,
    is_bucket_count,
    key_buckets,
    parts_ahead,
)

COUNTS = [count for count in range(1, SLOTS + 1) if is_bucket_count(count)]
ANY_BUCKET = st.sampled_from(COUNTS[:6]).flatmap(lambda of: st.sampled_from(key_buckets(of)))


@pytest.mark.parametrize("count", COUNTS)
def test_every_slot_is_in_one_bucket(count: int) -> None:
    buckets = key_buckets(count)
    slots = [at for one in buckets for at in range(one.first_slot, one.last_slot + 1)]
    assert slots == list(range(SLOTS))
    assert [bucket_named(one.name) for one in buckets] == list(buckets)
    assert sorted(one.name for one in buckets) == [one.name for one in buckets]


def test_names_of_no_bucket() -> None:
    for name in ("", "1", "0-of-4", "5-of-4", "1-of-3", "01-of-4", "1-of-16", "1-of-512"):
        assert bucket_named(name) is None


@given(st.dictionaries(ANY_BUCKET, st.integers(1, 9), max_size=12), ANY_BUCKET)
def test_a_bucket_is_applied_as_far_as_each_of_its_slots(
    batches: dict[KeyBucket, int], bucket: KeyBucket
) -> None:
    def of_slot(slot: int) -> int:
        known = (at for one, at in batches.items() if one.has_some_of(slot, slot))
        return max(known, default=0)

    slots = range(bucket.first_slot, bucket.last_slot + 1)
    position = applied_through(batches, bucket)
    assert position == min(map(of_slot, slots))
    ahead = parts_ahead(batches, bucket)
    for slot in slots:
        known = [at for one, at in ahead if one.has_some_of(slot, slot)]
        assert max(known, default=position) == of_slot(slot)


def test_the_number_of_buckets_changes_without_a_loss_of_progress() -> None:
    of_four = dict(zip(key_buckets(4), (7, 5, 9, 8), strict=True))
    assert applied_through(of_four, WHOLE) == 5
    assert [applied_through(of_four, one) for one in key_buckets(2)] == [5, 8]
    assert [applied_through(of_four, one) for one in key_buckets(8)] == [7, 7, 5, 5, 9, 9, 8, 8]
