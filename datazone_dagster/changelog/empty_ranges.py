"""Ranges of batches that surely have no change of a bucket, as the files of the change log say."""

from __future__ import annotations

from datazone_dagster.changelog import ranges
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.model.key_bucket import KeyBucket


def surely_lacks(
    log: ChangeLogSnapshot, after_batch: int, through_batch: int, bucket: KeyBucket
) -> bool:
    """Return whether (after_batch, through_batch] has no change of a bucket, without reading it.

    A range of which something was truncated may have had some.
    """
    is_truncated = after_batch < min(log.truncated_through, through_batch)
    return not is_truncated and not ranges.files_between(
        log.files, after_batch, through_batch, bucket
    )
