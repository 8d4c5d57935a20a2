"""The checkpoint as of now: the saved one, with everything that the change log knows beyond it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.model.checkpoint import Checkpoint, GapNote, fold


def up_to_date(saved: Checkpoint, log: ChangeLogSnapshot, now: datetime) -> Checkpoint:
    """Return a saved checkpoint with everything added that the change log knows beyond it.

    A lost checkpoint is rebuilt: positions from the rows, gaps from the gap notes. An old copy has
    its positions, but lacks the gaps found since; of those, the open ones are added. The epoch
    that a snapshot announced counts from its commit on.
    """
    checkpoint = fold(saved, log.landed_since(saved.batch), log.head, now)
    noted = with_open(checkpoint, log.gaps) if saved.shards else checkpoint.with_notes(log.gaps)
    announced = 0 if log.snapshot is None else log.snapshot.epoch
    return noted.at(epoch=max(noted.epoch, announced)).without_ended_streams()


def with_open(checkpoint: Checkpoint, stored: Iterable[GapNote]) -> Checkpoint:
    """Return the checkpoint with those of the stored gap notes that are open."""
    return checkpoint.with_notes(note for note in stored if note.is_open)
