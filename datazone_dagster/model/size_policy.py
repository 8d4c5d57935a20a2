"""The size policy: how large a batch of the drain and a chunk of a run are, in bytes. Pure.

Batches that are too small pay for a commit each; a batch that is too large delays its records,
is lost work when it fails, and needs memory. So the size follows measurements: it fills the
target time of a batch, grows where commits are slow, and never exceeds what memory allows. The
same rule serves the drain's batches (`batch_limits`) and the chunks of an apply
(`full_chunk_limits`, `rows_chunk_limits`, `chunk_bounds`). The stages measure time and memory,
and ask.

Steps are limited and small differences are ignored, so the size converges: see the simulation
in tests/model/test_size_policy.py and the page 'Performance' of the documentation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

COMMIT_SHARE = 0.2
"""Share of a batch's time that its commit may take before batches get larger."""

LARGEST_STEP = 2.0
DEAD_BAND = 0.25
"""Largest relative difference between the wanted and the current size that is ignored."""

SMOOTHING = 0.4
"""Weight of the newest measurement."""

PRESSURE_HIGH = 0.9
PRESSURE_LOW = 0.7
"""Shares of the memory budget in use: above the first, sizes halve; below the second, they grow."""

SMALLEST_BATCH_BYTES = 2 << 20
BATCH_SHARE_OF_BUDGET = 1 / 8
"""Largest batch as a share of the memory budget: a run has at least one batch in memory."""

LARGEST_BATCH_BYTES = 64 << 20
"""Largest batch under any budget of the drain: a run of the default budget can apply it in every
mode, whatever is in it (tests/apply/test_large_items.py)."""

BATCH_SECONDS = 4.0
"""Target duration of a batch where commits are cheap: its records are visible only afterwards."""

BATCHES_SHARE_OF_BUDGET = 1 / 4
"""Share of the memory budget that batches always get, even if the process alone is near it."""

RETAINING_BYTES = 256 << 20
"""Memory beside the process from which on a drain retains freed memory for speed: what stays of it
between blocks in use can take 150 MiB (measured)."""

KNOWN_CHANGE_BYTES = 170
KNOWN_CHANGES_SHARE = 1 / 10
MOST_KNOWN_CHANGES = 200_000
"""Memory of one number of a landed change; share of the memory beside the process that they get;
their most, which is what a drain of the default budget keeps."""

APPLY_BUDGET_BYTES = 1 << 30
DRAIN_BUDGET_BYTES = 512 << 20
"""Default memory budgets of a run and of a drain, where the process may take twice as much."""

MIN_WORKING_BYTES = 192 << 20
"""Working memory that a run always gets, even if the process alone is near the budget."""

LOADED_BYTES = 120 << 20
"""Memory that the process takes for good with its first chunk: libraries that are loaded then,
and what their allocators retain (measured)."""

SMALLEST_CHUNK_BYTES = 8 << 20
LARGEST_ROWS_CHUNK_BYTES = 8 << 30
"""Largest chunk whose images are read later; its memory is limited by
`ChunkBounds.retained_bytes`."""

CHUNK_SECONDS = 5.0
"""Target duration of a chunk where commits are cheap."""

FULL_SHARE = 1 / 16
"""Share of the working memory for the decoded bytes of a chunk with every change. Memory holds the
chunk as it was read, as the function's result, and as the merge's input."""

RETAINED_SHARE = 1 / 7
"""Share of the working memory for changes and their rows before they are merged, where images are
read later."""

EVERY_CHANGE_SHARE = 1 / 11
"""The same where every change counts: a history takes more memory for a change while it merges."""

NEARLY = 0.9
"""Share of `ChunkBounds.retained_bytes` at which a chunk that was just collapsed ends: close to the
bound, every row group would collapse everything again."""

KEY_INDEX_SHARE = 1 / 8
"""Share of the memory budget for key indexes, which a run keeps between chunks."""

FRAME_SHARE = 1 / 4
"""Share of the working memory for DuckDB's intermediate results; more spills to disk."""

MIN_FRAME_BYTES = 512 << 20
MIN_FRAME_SHARE = 2 / 3
"""Smallest memory limit of DuckDB: these bytes, or this share of the working memory if that is
less. `items()` on one batch of the largest items holds the batch six to eight times (measured);
where that is too much, the batch is evaluated in parts."""

RELEASE_ABOVE_SHARE = 0.5
"""Share of a run's budget in use above which freed memory is returned to the system."""


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """Limits of a batch size.

    Args:
        smallest_bytes: Smallest batch that is worth a commit.
        largest_bytes: Largest batch that memory allows, estimated.
        target_seconds: Duration of one batch where commits are cheap.
    """

    smallest_bytes: int
    largest_bytes: int
    target_seconds: float


@dataclass(frozen=True, slots=True)
class BatchMeasured:
    """Measurements of one batch.

    Args:
        bytes: Size of the batch, in the unit of `BatchSize.bytes`.
        work_seconds: Time for reading and computing, which grows with the bytes.
        commit_seconds: Fixed time that the batch would have taken without any bytes.
        full: Whether the batch ended because of its size: only then was there more to do.
        memory_pressure: Share of the memory budget in use at the end of the batch, 0 if unknown.
        throttled: Whether the service throttled reads.
    """

    bytes: int
    work_seconds: float
    commit_seconds: float
    full: bool
    memory_pressure: float = 0.0
    throttled: bool = False


@dataclass(frozen=True, slots=True)
class BatchSize:
    """The size of the next batch and the measurements behind it."""

    limits: SizeLimits
    bytes: int
    bytes_per_second: float = 0.0
    commit_seconds: float = 0.0
    ceiling_bytes: int = 0

    @classmethod
    def first(cls, limits: SizeLimits) -> BatchSize:
        """Return the size before any measurement: a quarter of what memory allows."""
        start = max(limits.smallest_bytes, limits.largest_bytes // 4)
        return cls(limits, start, ceiling_bytes=limits.largest_bytes)

    def after(self, measured: BatchMeasured) -> BatchSize:
        """Return the size of the batch after the measured one."""
        ceiling = self._ceiling_after(measured)
        known = self
        wanted = self.bytes
        if measured.full and measured.bytes > 0:
            known = self._smoothed(measured)
            wanted = known._wanted_bytes()
        # A batch that ran out of records is not measured: its fixed costs would look like work.
        if measured.throttled:
            wanted = min(wanted, self.bytes // 2)
        return replace(known, ceiling_bytes=ceiling, bytes=self._stepped(wanted, ceiling))

    def _smoothed(self, measured: BatchMeasured) -> BatchSize:
        rate = measured.bytes / max(measured.work_seconds, 1e-6)
        if not self.bytes_per_second:
            return replace(self, bytes_per_second=rate, commit_seconds=measured.commit_seconds)
        return replace(
            self,
            bytes_per_second=self.bytes_per_second + SMOOTHING * (rate - self.bytes_per_second),
            commit_seconds=self.commit_seconds
            + SMOOTHING * (measured.commit_seconds - self.commit_seconds),
        )

    def _wanted_bytes(self) -> int:
        if not self.bytes_per_second:
            return self.bytes
        seconds = max(self.limits.target_seconds, self.commit_seconds / COMMIT_SHARE)
        return int(self.bytes_per_second * seconds)

    def _ceiling_after(self, measured: BatchMeasured) -> int:
        limits = self.limits
        if measured.memory_pressure > PRESSURE_HIGH:
            return max(limits.smallest_bytes, min(self.ceiling_bytes, self.bytes) // 2)
        if measured.memory_pressure < PRESSURE_LOW:
            # Grow by less than the distance between the two marks, so that it rests between them.
            return min(limits.largest_bytes, self.ceiling_bytes + self.ceiling_bytes // 8 + 1)
        return self.ceiling_bytes

    def _stepped(self, wanted: int, ceiling: int) -> int:
        size = self.bytes
        if abs(wanted - size) > DEAD_BAND * size:
            size = int(min(max(wanted, size / LARGEST_STEP), size * LARGEST_STEP))
        return max(self.limits.smallest_bytes, min(size, ceiling))


@dataclass(frozen=True, slots=True)
class ChunkBounds:
    """Bounds of one chunk that is read selectively.

    Args:
        decoded_bytes: Decoded bytes of the chunk; it ends with the batch that reaches them.
        row_bytes: Bytes of the function's rows per change, as far as known; None: unknown.
        retained_bytes: Estimated memory until the commit, for a keyed change per key and its
            rows; the chunk ends with the batch that reaches it. None: the chunk has its images,
            so that `decoded_bytes` limit its memory.
        most_bytes: Limit on the actual size of the rows; a single batch may exceed it. None: no
            limit.
    """

    decoded_bytes: int
    row_bytes: float | None = None
    retained_bytes: int | None = None
    most_bytes: int | None = None

    def after_too_much(self, row_bytes: float) -> ChunkBounds:
        """Return the bounds of another attempt, after rows of `row_bytes` a change were too much.

        Halving ends at a single batch, which is never too much.
        """
        halved = None if self.retained_bytes is None else self.retained_bytes // 2
        return replace(self, retained_bytes=halved, row_bytes=row_bytes)


def batch_limits(memory_budget: int) -> SizeLimits:
    """Return the limits of the drain's batches, in body bytes."""
    share = int(memory_budget * BATCH_SHARE_OF_BUDGET)
    largest_bytes = min(max(SMALLEST_BATCH_BYTES, share), LARGEST_BATCH_BYTES)
    return SizeLimits(SMALLEST_BATCH_BYTES, largest_bytes, BATCH_SECONDS)


def batch_memory_share(memory_budget: int, base_bytes: int, resident_bytes: int) -> float:
    """Return the share of the memory for batches that is in use.

    Args:
        memory_budget: Memory limit of the process, in bytes.
        base_bytes: Resident memory of the process before its first drain.
        resident_bytes: Resident memory of the process now.
    """
    available = _beside_the_process(memory_budget, base_bytes)
    return max(0.0, (resident_bytes - base_bytes) / available)


def retains_freed_memory(memory_budget: int, base_bytes: int) -> bool:
    """Return whether a drain has memory to retain what it frees.

    Arguments are as for `batch_memory_share`.
    """
    return _beside_the_process(memory_budget, base_bytes) >= RETAINING_BYTES


def known_changes(memory_budget: int, base_bytes: int) -> int:
    """Return how many landed changes of Kinesis a drain's process keeps the numbers of.

    Others are looked up in the change log: fewer cost time, not rows. Arguments are as for
    `batch_memory_share`.
    """
    available = _beside_the_process(memory_budget, base_bytes)
    return min(MOST_KNOWN_CHANGES, int(available * KNOWN_CHANGES_SHARE / KNOWN_CHANGE_BYTES))


def _beside_the_process(memory_budget: int, base_bytes: int) -> float:
    return max(memory_budget - base_bytes, memory_budget * BATCHES_SHARE_OF_BUDGET)


def available_bytes(memory_budget: int, retained_bytes: int, *, first_chunk: bool) -> int:
    """Return the memory budget left after what a process retains between chunks, in bytes.

    Args:
        memory_budget: Memory limit of the process, in bytes.
        retained_bytes: Memory that the process retains between two chunks.
        first_chunk: Whether the process is yet to load what its first chunk needs.
    """
    return max(memory_budget - retained_bytes - (LOADED_BYTES if first_chunk else 0), 0)


def key_index_bytes(memory_budget: int) -> int:
    """Return the memory for key indexes of a run's datasets."""
    return int(memory_budget * KEY_INDEX_SHARE)


def working_bytes(available: int) -> int:
    """Return the working memory of a run, given the available bytes."""
    return max(available, MIN_WORKING_BYTES)


def frame_memory_bytes(working: int) -> int:
    """Return DuckDB's memory limit, given the working memory."""
    smallest = min(MIN_FRAME_BYTES, int(working * MIN_FRAME_SHARE))
    return max(int(working * FRAME_SHARE), smallest)


def full_chunk_limits(working: int) -> SizeLimits:
    """Return the limits of chunks with every change, in decoded bytes, given the working memory."""
    return _chunk_limits(int(working * FULL_SHARE))


def rows_chunk_limits() -> SizeLimits:
    """Return the limits of chunks whose images are read later, in decoded bytes."""
    return _chunk_limits(LARGEST_ROWS_CHUNK_BYTES)


def _chunk_limits(largest_bytes: int) -> SizeLimits:
    largest_bytes = max(largest_bytes, SMALLEST_CHUNK_BYTES)
    return SizeLimits(SMALLEST_CHUNK_BYTES, largest_bytes, CHUNK_SECONDS)


def chunk_bounds(
    decoded_bytes: int,
    row_bytes: float | None,
    rows_within: int | None = None,
    *,
    latest_only: bool = True,
) -> ChunkBounds:
    """Return the bounds of the next selective chunk.

    Args:
        decoded_bytes: Size of the chunk, decoded.
        row_bytes: Bytes of the function's rows per change, as far as measured.
        rows_within: Working memory of the run, in bytes, if memory holds rows only, because images
            are read later; None if it holds the images of the chunk.
        latest_only: Whether the rows are those of the latest change of each key.
    """
    if rows_within is None:
        return ChunkBounds(decoded_bytes, row_bytes)
    share = RETAINED_SHARE if latest_only else EVERY_CHANGE_SHARE
    retained_bytes = int(rows_within * share)
    return ChunkBounds(decoded_bytes, row_bytes, retained_bytes, retained_bytes * 3 // 2)


def joins_more(elapsed_seconds: float, commit_seconds: float) -> bool:
    """Return whether a chunk with every change is joined with the next one before the merge.

    Args:
        elapsed_seconds: Time since the first of the joined chunks began.
        commit_seconds: Time that merges take, as measured so far; 0: none was made.
    """
    return elapsed_seconds < max(CHUNK_SECONDS, commit_seconds / COMMIT_SHARE)


def joined_bytes(working: int) -> int:
    """Return the memory for what remains of joined chunks, given the working memory.

    Half of what the latest changes may take: the next chunk comes on top.
    """
    return int(working * RETAINED_SHARE) // 2
