"""What can't be decoded: the row and the reason, for the quarantine."""

from __future__ import annotations

from typing import NamedTuple


class DecodeFailure(NamedTuple):
    """One row of a chunk that can't be decoded. Never raised: the pipeline quarantines the row.

    `row` is its index in the chunk, `reason` one plain sentence without the values.
    """

    row: int
    reason: str
