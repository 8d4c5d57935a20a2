"""When a table with `deletion_vectors="auto"` gets deletion vectors, by the bytes to rewrite. Pure.

A merge without vectors writes the rows again that stay in the files it touches. What that costs is
a matter of all merges to come: those of a backlog are known before they are made. A table never
loses its vectors, and needs readers that know them, so a cheap rewrite is preferred.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

REWRITE_BYTES = 32_000_000
"""Bytes that one merge rewrites from which on a table gets deletion vectors: a stream with traffic
merges every few seconds."""

BACKLOG_REWRITE_BYTES = 256_000_000
"""Bytes that a backlog rewrites, in all of its merges, from which on a table gets them."""


class TouchedFile(NamedTuple):
    """A data file that loses rows: its size in bytes, all of its rows, and those that stay."""

    size_bytes: int
    rows: int
    rows_left: int


def rewritten_bytes(files: Iterable[TouchedFile]) -> int:
    """Return the bytes that a merge without vectors writes again: the rows that stay."""
    return sum(file.size_bytes * file.rows_left // max(file.rows, 1) for file in files)


def hides_rows(rewritten: int, merges_left: float, *, one_merge_bytes: int = REWRITE_BYTES) -> bool:
    """Return whether a merge hides rows by deletion vectors instead of rewriting their files.

    Args:
        rewritten: Bytes that the merge would rewrite.
        merges_left: Number of merges of this size that the backlog will still bring.
        one_merge_bytes: `REWRITE_BYTES`, or another limit for the merge alone.
    """
    if rewritten >= one_merge_bytes:
        return True
    return rewritten * (1 + merges_left) >= BACKLOG_REWRITE_BYTES


def merges_left(changes_left: int, changes: int) -> float:
    """Return the number of merges that a backlog will still bring.

    Args:
        changes_left: Changes that wait behind this chunk.
        changes: Changes of this chunk.
    """
    return changes_left / changes if changes > 0 else 0.0
