"""Epoch of changes that arrive late, where arrival says nothing about order. Pure.

A snapshot raises the epoch in one commit. A stream of DynamoDB is read in order, so what lands
after that commit is newer than what landed before. Through Kinesis an older change may land after
it, and would beat a newer one that landed before. So the time of a change decides: what was made
before the scan could begin keeps the epoch before. The scan shows what it led to (invariant 6).

That time is by the clock of the service: the announcement has it from there, since the clock of
the machine may be behind, and would give changes made before the announcement the new epoch.
"""

from __future__ import annotations

from datetime import datetime

from datazone_dagster.model.event_order import first_order_digits
from datazone_dagster.model.shard import StreamDescription
from datazone_dagster.model.snapshot_state import SETTLE, SnapshotState

_MICROSECONDS = 1_000_000


def epoch_begins_at(
    stream: StreamDescription, snapshot: SnapshotState | None, epoch: int
) -> str | None:
    """Return the padded order number from which on changes have an epoch; None: all have it.

    Args:
        stream: Stream that is read.
        snapshot: The last snapshot of the source.
        epoch: Epoch of changes that land next.
    """
    raised_at = None if stream.is_ordered else _raised_at(snapshot, epoch)
    if raised_at is None:
        return None
    return first_order_digits(int((raised_at + SETTLE).timestamp() * _MICROSECONDS))


def _raised_at(snapshot: SnapshotState | None, epoch: int) -> datetime | None:
    """Return the time at which a snapshot raised this epoch; None if none did."""
    if snapshot is None:
        return None
    if snapshot.announced_at is not None and snapshot.epoch == epoch:
        return snapshot.raised_at
    base = snapshot.base
    return base.raised_at if base is not None and base.epoch == epoch else None
