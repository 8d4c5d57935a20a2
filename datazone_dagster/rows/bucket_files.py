"""Files whose rows are all of one bucket of keys: a tag in the Delta log has the slots of the keys.

Writers of different buckets then touch different files, and look for their keys in their own files
only. Other engines ignore the tag, and a file that they write has none: such a file may have any
key. Two buckets that change one are told apart by their commits, as any two writers are.
"""

from __future__ import annotations

from dataclasses import dataclass

from datazone_dagster.delta.live_file import LiveFile
from datazone_dagster.delta.log_files import Action
from datazone_dagster.model.key_bucket import SLOTS, WHOLE, KeyBucket

TAG = "datazone.slots"
"""Tag of a file with the first and the last slot of its keys, such as `0-15`."""


def tag_of(bucket: KeyBucket) -> str | None:
    """Return the tag of files of a bucket; None: files of any key have none."""
    return None if bucket.is_whole else f"{bucket.first_slot}-{bucket.last_slot}"


def tag_in(file: LiveFile) -> str | None:
    """Return the tag of a file; None if it has none."""
    tag: str | None = (file.add.get("tags") or {}).get(TAG)
    return tag


def tagged(add: Action, tag: str | None) -> Action:
    """Return an add action with a tag."""
    return add if tag is None else {**add, "tags": {**(add.get("tags") or {}), TAG: tag}}


def may_have_keys(file: LiveFile, bucket: KeyBucket) -> bool:
    """Return whether a file may have keys of a bucket."""
    slots = None if bucket.is_whole else _slots(file)
    return slots is None or bucket.has_some_of(*slots)


def belongs_to(file: LiveFile, bucket: KeyBucket) -> bool:
    """Return whether a file has keys of a bucket only."""
    slots = (0, WHOLE.last_slot) if bucket.is_whole else _slots(file)
    return slots is not None and bucket.has_all_of(*slots)


@dataclass(frozen=True, slots=True)
class Share:
    """Files of a table that one process maintains.

    Args:
        bucket: Bucket whose files it maintains.
        buckets: Number of buckets of the table. A file with keys of several is split.
    """

    bucket: KeyBucket = WHOLE
    buckets: int = 1

    def has(self, file: LiveFile) -> bool:
        """Return whether a file may be joined with others, or rewritten."""
        return belongs_to(file, self.bucket) and not self.splits(file)

    def splits(self, file: LiveFile) -> bool:
        """Return whether this process splits a file: the bucket of its first slot does."""
        first, last = _slots(file) or (WHOLE.first_slot, WHOLE.last_slot)
        is_wide = last - first >= SLOTS // self.buckets
        return is_wide and self.bucket.has_some_of(first, first)

    def tag_of(self, file: LiveFile) -> str | None:
        """Return the tag of files that a file may be joined with: that of its present bucket.

        Files of a larger former number of buckets come together again.
        """
        slots = _slots(file)
        if slots is None or self.buckets == 1:
            return None
        bucket = KeyBucket(slots[0] * self.buckets // SLOTS + 1, self.buckets)
        return tag_of(bucket) if bucket.has_all_of(*slots) else tag_in(file)


ALL_FILES = Share()


def _slots(file: LiveFile) -> tuple[int, int] | None:
    first, _, last = (tag_in(file) or "").partition("-")
    return (int(first), int(last)) if first.isdecimal() and last.isdecimal() else None
