"""Files of a large checkpoint: rows of finished shards are not written again at each save. Pure.

A stream of many shards has ten finished ones in the checkpoint for each open one. Their rows do not
change, so they have a file of their own. It has the batch of its save, and an older one than the
other file later: the highest batch of all rows is that of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from datazone_dagster.model.checkpoint import Checkpoint, ShardCheckpoint

FEW_ROWS = 2_000
"""Rows of finished shards from which on they get a file of their own."""

Rows = Mapping[tuple[str, str], ShardCheckpoint]


@dataclass(frozen=True, slots=True)
class DoneRows:
    """Rows of finished shards in a file of their own.

    Args:
        path: Path of the file.
        epoch: Epoch that its rows have.
        stream_arn: Current stream that its rows have.
        rows: The rows.
    """

    path: str
    epoch: int
    stream_arn: str
    rows: Rows

    def are_of(self, checkpoint: Checkpoint) -> bool:
        """Return whether a checkpoint has exactly these rows, besides others."""
        if (self.epoch, self.stream_arn) != (checkpoint.epoch, checkpoint.stream_arn):
            return False
        shards = checkpoint.shards
        return all(
            (row := shards.get(key)) is known or row == known for key, known in self.rows.items()
        )


@dataclass(frozen=True, slots=True)
class Parts:
    """What a save writes.

    Args:
        rows: Rows of the file that every save writes.
        done: Rows of a new file of finished shards; None: there is none, or the known one stays.
        keeps: Whether the known file of finished shards stays.
    """

    rows: Rows
    done: Rows | None = None
    keeps: bool = False


def parts_of(checkpoint: Checkpoint, known: DoneRows | None) -> Parts:
    """Return what a save of a checkpoint writes.

    Args:
        checkpoint: Checkpoint to save.
        known: The finished shards that the table has in a file of their own; None: it has none.
    """
    shards = checkpoint.shards
    if known is not None and known.are_of(checkpoint):
        rows = {key: row for key, row in shards.items() if key not in known.rows}
        finished = sum(row.is_done for row in rows.values())
        if rows and finished <= max(FEW_ROWS, len(known.rows) // 8):
            return Parts(rows, keeps=True)
    done = {key: row for key, row in shards.items() if row.is_done}
    if not FEW_ROWS < len(done) < len(shards):
        return Parts(shards)
    return Parts({key: row for key, row in shards.items() if key not in done}, done)


def done_rows(path: str, rows: Rows, checkpoint: Checkpoint, *, are_done: bool) -> DoneRows | None:
    """Return the rows of a file if it is one of finished shards."""
    if len(rows) <= FEW_ROWS or not are_done:
        return None
    return DoneRows(path, checkpoint.epoch, checkpoint.stream_arn, rows)
