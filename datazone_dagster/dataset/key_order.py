"""Rows in the order of their keys and versions, and the keys whose changes come late. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.dataset.latest import latest_rows
from datazone_dagster.model.column_names import EVENT_TIME, KEY, VALID_TO, VERSION

Numbers: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]

FIRST_TIME, LAST_TIME = (int(one) for one in (np.iinfo(np.int64).min, np.iinfo(np.int64).max))
"""Microseconds in place of a time that is null."""


def key_numbers(
    tables: Sequence[pa.Table], *, ascending: bool = True
) -> tuple[pa.Array, list[Numbers]]:
    """Number the keys of some tables.

    Args:
        tables: Tables with the key column.
        ascending: Whether keys get numbers in their order; else in the order of appearance.

    Returns:
        The distinct keys by number, and per table the number of each row's key.
    """
    chunks = [chunk for table in tables for chunk in table[KEY].chunks]
    encoded = pa.chunked_array(chunks, pa.string()).combine_chunks().dictionary_encode()
    keys, numbers = encoded.dictionary, encoded.indices.to_numpy().astype(np.int64)
    if ascending:
        sorted_at = pc.array_sort_indices(keys)
        ranks = np.empty(len(keys), np.int64)
        ranks[sorted_at.to_numpy()] = np.arange(len(keys))
        keys, numbers = keys.take(sorted_at), ranks[numbers]
    ends = np.cumsum([0, *(len(table) for table in tables)])
    return keys, [numbers[start:end] for start, end in pairwise(ends)]


def by_version(keys: Numbers, versions: pa.Array) -> Numbers:
    """Return the positions of rows in the order of key and version.

    Args:
        keys: Numbers of the keys.
        versions: The versions, which usually ascend for each key already.
    """
    order = np.argsort(keys, kind="stable")
    key, version = keys[order], versions.take(pa.array(order))
    ascend = pc.less_equal(version[:-1], version[1:]).to_numpy(zero_copy_only=False)
    if np.all(ascend | (key[1:] != key[:-1])):
        return order
    return np.lexsort((pc.rank(versions, tiebreaker="dense").to_numpy(), keys))


def microseconds(times: pa.ChunkedArray, null: int) -> Numbers:
    """Return times as numbers, with `null` in place of nulls."""
    numbers = pc.fill_null(times.combine_chunks().cast(pa.int64()), null)
    return np.asarray(numbers.to_numpy(zero_copy_only=False), np.int64)


def late_keys(keyed_changes: pa.Table, known: pa.Table) -> pa.Array:
    """Return the keys with a change whose version is not above all that is known of its key.

    Args:
        keyed_changes: Key and version.
        known: Key and version of rows and absorbed changes.
    """
    keys, (changed, numbers) = key_numbers([keyed_changes, known], ascending=False)
    late = are_late(len(keys), changed, keyed_changes[VERSION], numbers, known[VERSION])
    return keys.filter(pa.array(late))


def keys_before_ends(keyed_changes: pa.Table, existing: pa.Table) -> pa.Array:
    """Return the keys with a change from before the end of a row.

    The change that ended the row may have expired: then only the end shows that a change is late.

    Args:
        keyed_changes: Key and event time.
        existing: Key and end of the last row of each key, perhaps of others too.
    """
    ended = existing.select([KEY, VALID_TO]).filter(existing[VALID_TO].is_valid())
    keys, (changed, numbers) = key_numbers([keyed_changes, ended], ascending=False)
    before = are_before(len(keys), changed, keyed_changes[EVENT_TIME], numbers, ended[VALID_TO])
    return keys.filter(pa.array(before))


def are_late(
    count: int,
    changed: Numbers,
    versions: pa.ChunkedArray,
    known: Numbers,
    known_versions: pa.ChunkedArray,
) -> Flags:
    """Return per key whether a version is not above all versions that are known.

    Args:
        count: Number of keys.
        changed: Number of the key of each change.
        versions: Version of each change.
        known: Number of the key of each row or change that is known.
        known_versions: Version of each of them.
    """
    late = np.zeros(count, bool)
    highest = np.full(count, -1, np.int64)
    last = np.asarray(latest_rows(pa.array(known), known_versions))
    highest[known[last]] = last
    at = np.flatnonzero(highest[changed] >= 0)
    if len(at):
        found = versions.combine_chunks().take(pa.array(at))
        others = known_versions.combine_chunks().take(pa.array(highest[changed[at]]))
        late[changed[at[pc.less_equal(found, others).to_numpy(False)]]] = True
    return late


def are_before(
    count: int,
    changed: Numbers,
    times: pa.ChunkedArray,
    existing: Numbers,
    ends: pa.ChunkedArray,
) -> Flags:
    """Return per key whether a change is from before the last end of its rows.

    Args:
        count: Number of keys.
        changed: Number of the key of each change.
        times: Time of each change.
        existing: Number of the key of each row.
        ends: End of each row, null if it is open.
    """
    ended = np.full(count, FIRST_TIME)
    np.maximum.at(ended, existing, microseconds(ends, FIRST_TIME))
    before = np.zeros(count, bool)
    before[changed[microseconds(times, LAST_TIME) < ended[changed]]] = True
    return before


def are_last(rows: pa.Table) -> Flags:
    """Return per row whether it has the highest version of its key.

    Args:
        rows: Key and version; several rows may have the same.
    """
    distinct, (numbers,) = key_numbers([rows], ascending=False)
    last = np.asarray(latest_rows(pa.array(numbers), rows[VERSION]))
    if len(last) == len(rows):
        return np.ones(len(rows), bool)
    highest = np.empty(len(distinct), np.int64)
    highest[numbers[last]] = last
    versions = rows[VERSION].combine_chunks()
    same = pc.equal(versions, versions.take(pa.array(highest[numbers])))
    return np.asarray(same.to_numpy(zero_copy_only=False), bool)
