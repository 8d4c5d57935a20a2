"""Time in which no drain looked whether a table sends its changes to Kinesis. Pure.

DynamoDB tells whether it does now, not since when. So a destination that was off and on again
between two drains leaves no trace in the tables of ours, nor in the stream.
"""

from __future__ import annotations

from datetime import datetime, timedelta

UNWATCHED = timedelta(minutes=10)
"""Time between two drains from which on it is told."""


def unwatched(polled_at: datetime | None, now: datetime) -> str:
    """Return a sentence about the time since the drain before; empty if it is short, or unknown.

    Args:
        polled_at: Time of the drain before.
        now: Time of this one, which has found that the table sends its changes.
    """
    if polled_at is None or now - polled_at < UNWATCHED:
        return ""
    return (
        f"No drain looked from {polled_at:%Y-%m-%d %H:%M:%S} to {now:%Y-%m-%d %H:%M:%S} UTC "
        "whether the table sends its changes to Kinesis. If that was switched off and on in this "
        "time, changes are lost without a gap. CloudTrail has "
        "DisableKinesisStreamingDestination then: start a resync."
    )
