"""Files of the checkpoint as a process knows them: of what others save, it parses what has moved.

Where several drains save, each one reads what the others have saved, many times a minute. A file
that stays is not read again. Of a new one, the rows that equal those of the file before it are
found column by column, and keep their objects; only the others are made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.changelog.checkpoint_parts import Rows
from datazone_dagster.changelog.checkpoint_rows import OF_A_ROW, SCHEMA, keys_in, shards_in
from datazone_dagster.model.checkpoint import Checkpoint, ShardCheckpoint


@dataclass(frozen=True)
class CheckpointFile:
    """Rows of one file, and what they say of the checkpoint.

    Args:
        rows: The shards by stream ARN and id, in the order of the file.
        batch: Last batch that was folded in.
        epoch: Epoch of the checkpoint.
        stream_arn: Stream that was read last.
        table: The rows as they are in the file; empty where the next file need not be compared.
    """

    rows: Rows
    batch: int
    epoch: int
    stream_arn: str
    table: pa.Table = field(default_factory=SCHEMA.empty_table)

    @cached_property
    def numbers(self) -> Mapping[tuple[str, str], int]:
        """Number of each row in `table`, by its key."""
        return {key: number for number, key in enumerate(keys_in(self.table))}

    @cached_property
    def is_done(self) -> bool:
        """Whether all its shards are finished: such a file stays."""
        return all(row.is_done for row in self.rows.values())


def file_of(rows: Rows, checkpoint: Checkpoint, table: pa.Table) -> CheckpointFile:
    """Return a file with some rows of a checkpoint, as this process has written it."""
    batch, epoch, arn = checkpoint.batch, checkpoint.epoch, checkpoint.stream_arn
    return _without_done(CheckpointFile(rows, batch, epoch, arn, table))


def file_in(table: pa.Table, known: Iterable[CheckpointFile]) -> CheckpointFile:
    """Return a file that another process may have written.

    Args:
        table: Its rows.
        known: The files that this process knew before.
    """
    if not table.num_rows:
        return CheckpointFile({}, 0, 0, "")
    before = max(known, key=lambda one: one.table.num_rows, default=None)
    return _without_done(
        CheckpointFile(
            _rows_in(table, before),
            batch=pc.max(table["batch"]).as_py(),
            epoch=pc.max(table["epoch"]).as_py(),
            stream_arn=table["current_stream_arn"][0].as_py(),
            table=table,
        )
    )


def checkpoint_of(files: Iterable[CheckpointFile]) -> Checkpoint:
    """Return the checkpoint whose rows these files have."""
    files = [one for one in files if one.rows]
    if not files:
        return Checkpoint()
    newest = max(files, key=lambda one: one.batch)
    return Checkpoint(
        batch=newest.batch,
        epoch=max(one.epoch for one in files),
        stream_arn=newest.stream_arn,
        shards={key: row for one in files for key, row in one.rows.items()},
    )


def _without_done(file: CheckpointFile) -> CheckpointFile:
    """Return a file without its table if it is one that stays."""
    if file.rows and not file.is_done:
        return file
    return CheckpointFile(file.rows, file.batch, file.epoch, file.stream_arn)


def _rows_in(table: pa.Table, before: CheckpointFile | None) -> Rows:
    """Return the rows of a file; those that a former one has, too, are the same objects."""
    if before is None or not before.table.num_rows:
        return {(row.stream_arn, row.shard_id): row for row in shards_in(table)}
    keys = list(keys_in(table))
    numbers = pa.array([before.numbers.get(key) for key in keys], pa.int64())
    is_same = _same(table, before.table.take(numbers))
    moved = iter(list(shards_in(table.filter(pc.invert(is_same)))))
    known = before.rows
    return {
        key: known[key] if same else _of(key, next(moved))
        for key, same in zip(keys, is_same.to_pylist(), strict=True)
    }


def _of(key: tuple[str, str], row: ShardCheckpoint) -> ShardCheckpoint:
    assert (row.stream_arn, row.shard_id) == key, "rows are filtered in their order"
    return row


def _same(one: pa.Table, other: pa.Table) -> pa.ChunkedArray:
    """Return for each row whether two tables have the same shard in it."""
    columns = (_equal(one[name], other[name]) for name in OF_A_ROW)
    found = next(columns)
    for column in columns:
        found = pc.and_(found, column)
    return found


def _equal(one: pa.ChunkedArray, other: pa.ChunkedArray) -> pa.ChunkedArray:
    both_null = pc.and_(pc.is_null(one), pc.is_null(other))
    return pc.or_(pc.fill_null(pc.equal(one, other), False), both_null)
