"""The order key of changes: epoch and sequence number in one sortable string.

Sequence numbers are integers of 21 to 40 digits with gaps and differing widths
(DynamoDB Streams API, `SequenceNumber`: 21 to 40 characters), so the raw strings do
not sort. Versions are compared only within one item key.
"""

from __future__ import annotations

EPOCH_DIGITS = 8
SEQUENCE_DIGITS = 40


def row_version(epoch: int, sequence_number: int) -> str:
    """Return the `_dz_version` of a change: 48 digits that sort as (epoch, sequence number)."""
    return f"{epoch_digits(epoch)}{sequence_number:0{SEQUENCE_DIGITS}d}"


def epoch_digits(epoch: int) -> str:
    """Return the epoch as it prefixes a `_dz_version`: 8 digits."""
    return f"{epoch:0{EPOCH_DIGITS}d}"


def split_version(version: str) -> tuple[int, int]:
    """Return the epoch and the sequence number of a `_dz_version`."""
    return int(version[:EPOCH_DIGITS]), int(version[EPOCH_DIGITS:])
