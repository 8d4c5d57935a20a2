"""Plan of keys whose changes are newer than all that is known of them: nearly all keys. Pure.

The same result as the queries of `history_sql`, from arrays: rows are sorted once by key, and
values are compared only where two changes of a key follow each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.dataset.key_order import (
    FIRST_TIME,
    Flags,
    Numbers,
    by_version,
    microseconds,
)
from datazone_dagster.model.column_names import (
    DELETE_CAUSE,
    DELETED,
    EVENT_TIME,
    KEY,
    VALID_FROM,
    VALID_TO,
    VERSION,
)
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.model.snapshot_state import ABSENT
from datazone_dagster.rows.merge_batch import CAUSE

CLOSING = ("user", "ttl", ABSENT)
"""Causes that mark the interval that they end."""

NO_ROW = -1

_TIME = pa.timestamp("us", tz="UTC")
_EXISTING, _END, _NEW = 0, 1, 2


@dataclass(frozen=True)
class PlannedRows:
    """Plan of some keys, in rows of the inputs.

    Args:
        removed: Positions of existing rows to remove.
        added: `row`, the position of a row to add among all values, and its `valid_from`,
            `valid_to` and `cause`.
        absorbed: Key, version, event time and cause of newly absorbed changes, and `row`; null if
            a change has no row.
        counts: Numbers of intervals.
    """

    removed: Numbers
    added: pa.Table
    absorbed: pa.Table
    counts: MergeCounts


@dataclass(frozen=True)
class NewerChanges:
    """The changes to plan, and the last row of each of their keys that has one.

    Args:
        existing: The table's rows; they are also the first ones among all values.
        existing_at: Positions in `existing` of the last rows, one per key.
        existing_keys: Number of the key of each of them.
        changes: Keyed changes with event times.
        changes_at: Positions in `changes` of the changes.
        change_keys: Number of the key of each of them.
        change_rows: Position among all values of the row of each of them, or `NO_ROW`.
        key_count: Number of all keys.
    """

    existing: pa.Table
    existing_at: Numbers
    existing_keys: Numbers
    changes: pa.Table
    changes_at: Numbers
    change_keys: Numbers
    change_rows: Numbers
    key_count: int


@dataclass(frozen=True)
class _Events:
    """What happened to the keys, by key and time: an array element each.

    Args:
        key: Number of the key.
        kind: The last row that existed, its end, or a change.
        at: Position in the existing rows or the changes.
        row: Position among all values, or `NO_ROW`.
        began: Time in microseconds.
        cause: Reason to leave; null while there is a row.
        is_first: Whether it is the first of its key.
    """

    key: Numbers
    kind: Numbers
    at: Numbers
    row: Numbers
    began: Numbers
    cause: pa.Array
    is_first: Flags


def plan_newer(
    newer: NewerChanges, differ: Callable[[Numbers, Numbers], Flags], *, soft: bool
) -> PlannedRows:
    """Plan the intervals.

    Args:
        newer: The changes.
        differ: Whether rows differ in a tracked column, pair by pair, as positions among all
            values.
        soft: Whether an interval that a delete closes is marked.
    """
    events = _events(newer)
    starts = np.flatnonzero(_begin_interval(events, differ))
    last = np.append(starts[1:], len(events.key))[: len(starts)] - 1
    valid_from = _valid_from(events, starts)
    followed = np.flatnonzero(~events.is_first[starts[1:]])
    valid_to = np.full(len(starts), FIRST_TIME)
    valid_to[followed] = valid_from[followed + 1]
    next_cause = np.full(len(starts), -1)
    next_cause[followed] = starts[followed + 1]
    causes = events.cause.take(pa.array(next_cause, mask=next_cause < 0))
    causes = pc.if_else(
        pc.is_in(causes, pa.array(CLOSING)) if soft else pa.scalar(False), causes, None
    ).cast(pa.string())

    is_visible = events.row[starts] != NO_ROW
    shown = np.flatnonzero(is_visible & (events.kind[last] == _EXISTING))
    row = events.at[last[shown]]
    is_same = (valid_from[shown] == microseconds(newer.existing[VALID_FROM], FIRST_TIME)[row]) & (
        valid_to[shown] == microseconds(newer.existing[VALID_TO], FIRST_TIME)[row]
    )
    is_unchanged = np.zeros(len(starts), bool)
    is_unchanged[shown[is_same]] = True
    stays = np.zeros(len(newer.existing), bool)
    stays[row[is_same]] = True
    removed = newer.existing_at[~stays[newer.existing_at]]
    removed_keys = newer.existing_keys[~stays[newer.existing_at]]
    added = np.flatnonzero(is_visible & ~is_unchanged)
    was_open = pc.is_null(newer.existing[VALID_TO]).to_numpy()[removed]
    return PlannedRows(
        removed,
        pa.table(
            {
                "row": events.row[last[added]],
                "valid_from": _times(valid_from[added]),
                "valid_to": _times(valid_to[added]),
                "cause": causes.take(pa.array(added)),
            }
        ),
        _absorbed(newer, events, last[is_visible]),
        _counts(
            newer.key_count,
            events.key[last[added]],
            valid_to[added] == FIRST_TIME,
            removed_keys,
            was_open,
        ),
    )


def _closed_by(existing: pa.Table) -> pa.Array:
    if DELETED not in existing.column_names:
        return pa.nulls(len(existing), pa.string())
    cause = existing[DELETE_CAUSE].combine_chunks()
    return pc.if_else(pc.fill_null(existing[DELETED].combine_chunks(), False), cause, None)


def _events(newer: NewerChanges) -> _Events:
    existing_at, changes = newer.existing_at, newer.changes
    ends = microseconds(newer.existing[VALID_TO], FIRST_TIME)[existing_at]
    ended = np.flatnonzero(ends != FIRST_TIME)
    versions = changes[VERSION].combine_chunks().take(pa.array(newer.changes_at))
    order = by_version(newer.change_keys, versions)
    changes_at = newer.changes_at[order]
    parts = (len(existing_at), len(ended), len(order))
    key = np.concatenate(
        [newer.existing_keys, newer.existing_keys[ended], newer.change_keys[order]]
    )
    # Stable: the last row of a key, its end, and then the changes.
    by_key = np.argsort(key, kind="stable")
    began = [
        microseconds(newer.existing[VALID_FROM], FIRST_TIME)[existing_at],
        ends[ended],
        microseconds(changes[EVENT_TIME], FIRST_TIME)[changes_at],
    ]
    causes = [
        pa.nulls(parts[0], pa.string()),
        pc.fill_null(_closed_by(newer.existing).take(pa.array(existing_at[ended])), "filtered"),
        changes[CAUSE].combine_chunks().take(pa.array(changes_at)),
    ]
    row = [existing_at, np.full(parts[1], NO_ROW), newer.change_rows[order]]
    key = key[by_key]
    return _Events(
        key,
        np.repeat(np.array([_EXISTING, _END, _NEW], np.int64), parts)[by_key],
        np.concatenate([existing_at, existing_at[ended], changes_at])[by_key],
        np.concatenate(row)[by_key],
        np.concatenate(began)[by_key],
        pa.concat_arrays(causes).take(pa.array(by_key)),
        np.append(np.ones(min(len(key), 1), bool), key[1:] != key[:-1]),
    )


def _begin_interval(events: _Events, differ: Callable[[Numbers, Numbers], Flags]) -> Flags:
    """Return whether an event begins an interval, or a time without a row."""
    begins: Flags = events.is_first.copy()
    has_row = events.row != NO_ROW
    begins[1:] |= has_row[1:] != has_row[:-1]
    pairs = np.flatnonzero(~begins & has_row)
    begins[pairs] = differ(events.row[pairs], events.row[pairs - 1])
    return begins


def _valid_from(events: _Events, starts: Numbers) -> Numbers:
    """Return the times at which intervals begin: none before its predecessor.

    A key's first time without a row delays nothing.
    """
    began: Numbers = events.began[starts]
    is_first = events.is_first[starts]
    began[is_first & (events.row[starts] == NO_ROW)] = FIRST_TIME
    if np.all(is_first[1:] | (began[1:] >= began[:-1])):
        return began
    times, ranks = np.unique(began, return_inverse=True)
    by_key = np.cumsum(is_first) * len(times)
    return np.asarray(times[np.maximum.accumulate(by_key + ranks) - by_key], np.int64)


def _absorbed(newer: NewerChanges, events: _Events, shown: Numbers) -> pa.Table:
    """Return the changes that no row shows: all but those of the shown events."""
    is_hidden = events.kind != _END
    is_hidden[shown] = False
    hidden = np.flatnonzero(is_hidden)
    is_new = events.kind[hidden] == _NEW
    columns = [KEY, VERSION, EVENT_TIME]
    tables = [
        table.select(columns).take(pa.array(events.at[hidden[of]]))
        for table, of in ((newer.existing, ~is_new), (newer.changes, is_new))
    ]
    at = np.append(hidden[~is_new], hidden[is_new])
    rows = events.row[at]
    return (
        pa.concat_tables(tables)
        .append_column(CAUSE, events.cause.take(pa.array(at)))
        .append_column("row", pa.array(rows, mask=rows == NO_ROW))
    )


def _counts(
    key_count: int, added: Numbers, is_open: Flags, removed: Numbers, was_open: Flags
) -> MergeCounts:
    adds, removes = (np.bincount(keys, minlength=key_count) for keys in (added, removed))
    opened, closed = np.zeros(key_count, bool), np.zeros(key_count, bool)
    opened[added[is_open]] = True
    closed[removed[was_open]] = True
    ended = int((closed & ~opened).sum())
    return MergeCounts(
        int(np.maximum(adds - removes, 0).sum()),
        int(np.minimum(adds, removes).sum()) - ended,
        int(np.maximum(removes - adds, 0).sum()) + ended,
    )


def _times(microseconds: Numbers) -> pa.Array:
    return pa.array(microseconds, pa.int64(), mask=microseconds == FIRST_TIME).cast(_TIME)
