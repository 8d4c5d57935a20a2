"""How many bytes the next batch or chunk should have. Pure.

A batch that is too small pays for its commit again and again; one that is too large keeps
what it holds from being seen, is lost work when it fails, and needs memory. So its size
follows what was measured: enough for the time that a batch should take, longer where a
commit itself takes long, never beyond what memory allows. The same rule serves the drain's
batches and the chunks of an apply.

Steps are limited and small differences are ignored, so the size settles: see the simulation
in tests/model/test_batch_size.py and the plot in docs/performance.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

COMMIT_SHARE = 0.2
"""Of a batch's time, what its commit may take before the batch gets larger."""

LARGEST_STEP = 2.0
DEAD_BAND = 0.25
"""Relative difference between the wanted size and the present one that changes nothing."""

SMOOTHING = 0.4
"""Weight of the newest measurement."""

PRESSURE_HIGH = 0.9
PRESSURE_LOW = 0.7
"""Share of the memory budget in use: above the first sizes halve, below the second they grow."""


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """What the sizes stay within.

    Args:
        smallest_bytes: Below this a commit is never worth it.
        largest_bytes: What memory allows, by estimate.
        target_seconds: How long one batch should take where commits are cheap.
    """

    smallest_bytes: int
    largest_bytes: int
    target_seconds: float


@dataclass(frozen=True, slots=True)
class BatchMeasured:
    """One batch, as it went.

    Args:
        bytes: What it held, in the unit of the sizes.
        work_seconds: Reading and computing: grows with the bytes.
        commit_seconds: What it would have taken without any bytes.
        full: Whether it ended because of its size: only then was there more to do.
        memory_pressure: Share of the memory budget in use at its end, 0 if unknown.
        throttled: Whether the service asked to slow down.
    """

    bytes: int
    work_seconds: float
    commit_seconds: float
    full: bool
    memory_pressure: float = 0.0
    throttled: bool = False


@dataclass(frozen=True, slots=True)
class BatchSize:
    """The size of the next batch, and what it was derived from."""

    limits: SizeLimits
    bytes: int
    bytes_per_second: float = 0.0
    commit_seconds: float = 0.0
    ceiling_bytes: int = 0

    @classmethod
    def first(cls, limits: SizeLimits) -> BatchSize:
        """Before anything is measured: a quarter of what memory allows."""
        start = max(limits.smallest_bytes, limits.largest_bytes // 4)
        return cls(limits, start, ceiling_bytes=limits.largest_bytes)

    def after(self, measured: BatchMeasured) -> BatchSize:
        """The size of the batch after the one measured."""
        ceiling = self._ceiling_after(measured)
        known = self
        wanted = self.bytes
        if measured.full and measured.bytes > 0:
            known = self._smoothed(measured)
            wanted = known._wanted_bytes()
        # One that ended because nothing was left tells nothing: its fixed costs look like work.
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
            # By less than from one mark to the other, so that it comes to rest between them.
            return min(limits.largest_bytes, self.ceiling_bytes + self.ceiling_bytes // 8 + 1)
        return self.ceiling_bytes

    def _stepped(self, wanted: int, ceiling: int) -> int:
        size = self.bytes
        if abs(wanted - size) > DEAD_BAND * size:
            size = int(min(max(wanted, size / LARGEST_STEP), size * LARGEST_STEP))
        return max(self.limits.smallest_bytes, min(size, ceiling))
