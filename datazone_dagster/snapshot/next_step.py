"""Next step of a snapshot: state and facts in, step out. Pure.

The rules are invariant 6 of the design. The waits are for the drain and for the datasets: the
drain itself never waits for a snapshot.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.model.snapshot_state import Phase, SnapshotState


class Action(enum.Enum):
    """What a snapshot does next."""

    NOTHING = "nothing"
    ANNOUNCE = "announce"
    WAIT = "wait"
    START_SCAN = "start the scan"
    SCAN = "scan"
    MARK_CAUGHT_UP = "mark caught up"
    SWEEP = "sweep"


@dataclass(frozen=True, slots=True)
class Step:
    """The next step, and the reason in words: of a wait, or of another beginning."""

    action: Action
    why: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a snapshot sees around it.

    Args:
        checkpoint: The positions of the shards, up to date.
        positions: Last batch that each dataset of the source has applied, by dataset id; 0 for a
            dataset without a table.
        table_id: Id of the table as it is now; empty if the service returns none.
    """

    checkpoint: Checkpoint
    positions: Mapping[str, int]
    table_id: str


def next_step(state: SnapshotState | None, facts: Facts) -> Step:
    """Return the next step of a snapshot."""
    if state is None or state.phase in (Phase.DONE, Phase.CANCELLED):
        return Step(Action.NOTHING)
    if state.phase is Phase.WANTED:
        return Step(Action.ANNOUNCE)
    broken = why_again(state, facts)
    if broken:
        return Step(Action.ANNOUNCE, broken)
    if state.phase is Phase.SCANNING:
        return Step(Action.SCAN)
    if state.caught_up_batch is None:
        return _after_the_drain(state, facts)
    return _after_the_datasets(state, state.caught_up_batch, facts)


def _after_the_drain(state: SnapshotState, facts: Facts) -> Step:
    awaited = state.drain_must_pass
    if awaited is not None and not facts.checkpoint.has_passed(awaited):
        return Step(
            Action.WAIT,
            f"the drain to have read every change up to {awaited:%Y-%m-%d %H:%M:%S} UTC",
        )
    announced = state.phase is Phase.ANNOUNCED
    return Step(Action.START_SCAN if announced else Action.MARK_CAUGHT_UP)


def _after_the_datasets(state: SnapshotState, caught_up_batch: int, facts: Facts) -> Step:
    """The datasets have to know the scan before the sweep begins, not between its commits."""
    last = max(caught_up_batch, state.last_scan_batch)
    behind = sorted(one for one, position in facts.positions.items() if position < last)
    if behind and not state.sweep.checked:
        return Step(Action.WAIT, f"{', '.join(behind)} to have applied everything up to the scan")
    return Step(Action.SWEEP)


def why_again(state: SnapshotState, facts: Facts) -> str:
    """Return why a snapshot can't hand over and begins again; empty if it can.

    Changes lost before the announcement do no harm: the scan shows what they led to.
    """
    if state.table_id and facts.table_id and state.table_id != facts.table_id:
        return "the table was re-created"
    if facts.checkpoint.epoch > state.epoch:
        return "the stream was replaced by another one"
    lost = [note for note in facts.checkpoint.gap_notes() if state.is_broken_by(note.gap.until)]
    if lost:
        gap = lost[0].gap
        return f"changes were lost after it was announced (shard {gap.shard_id}: {gap.reason})"
    return ""
