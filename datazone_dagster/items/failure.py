"""Decode failures: the row and the reason, for the quarantine."""

from __future__ import annotations

from typing import NamedTuple


class DecodeFailure(NamedTuple):
    """One row of a chunk that can't be decoded. Never raised: the pipeline quarantines the row.

    `row` is the row's index in the chunk, `reason` one plain phrase without any value.
    """

    row: int
    reason: str
