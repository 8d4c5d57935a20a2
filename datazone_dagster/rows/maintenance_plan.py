"""Plan of the files of a table to rewrite. Pure.

Each merge adds a small file and hides rows of others; readers pay for both. A file is rewritten
when a good share of its rows is hidden, and small files are joined when there are enough of about
one size, so that a row is rewritten a few times in its life and not with every merge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from datazone_dagster.delta.intervals import CHECKPOINT_EVERY, interval_in
from datazone_dagster.errors import DefinitionError

MIB = 1 << 20

LOG_RETENTION = timedelta(days=30)
"""Time for which entries of a log stay if its property is not understood: Delta Lake's default."""

SIZES = (4 * MIB, 32 * MIB)
"""Bounds between small, medium and full-size files, in bytes; full-size ones are not joined."""


@dataclass(frozen=True, slots=True)
class MaintenanceSettings:
    """Thresholds and budgets of table maintenance.

    Args:
        join_files: Number of files of about one size, in one partition, from which on they are
            joined.
        hidden_share: Share of a file's rows, 0 to 1, from which on the file is rewritten without
            its hidden rows.
        checkpoint_commits: Commits after which a Delta checkpoint is made; in a table of thousands
            of files, whose checkpoint is large, it may be up to 20.
        group_bytes: Compressed size of the files that are joined into one; they are sorted in
            memory.
        budget_bytes: Size of the files read in one run of maintenance.
        budget_seconds: Time after which no further rewrite begins.
        retention: How long replaced files stay for readers of older versions; a day or more.
        clean_every: Time between two searches for orphan files.

    Raises:
        DefinitionError: `retention` is shorter than a day.
    """

    join_files: int = 8
    hidden_share: float = 0.05
    checkpoint_commits: int = CHECKPOINT_EVERY
    group_bytes: int = 64 * MIB
    budget_bytes: int = 256 * MIB
    budget_seconds: float = 20.0
    retention: timedelta = timedelta(days=7)
    clean_every: timedelta = timedelta(days=1)

    def __post_init__(self) -> None:
        """Check the retention: a running writer has files that no commit refers to yet."""
        if self.retention < timedelta(days=1):
            raise DefinitionError(
                f"MaintenanceSettings: retention={self.retention} is too short.",
                hint="Retain files for a day or more: younger ones may belong to a running writer.",
            )


THOROUGH = MaintenanceSettings(
    join_files=2,
    hidden_share=0.01,
    checkpoint_commits=2,
    budget_bytes=64 << 30,
    budget_seconds=1800.0,
    clean_every=timedelta(0),
)
"""Settings for quiet hours and for the command: everything worth doing is done."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Facts about one file, from the Delta log."""

    size_bytes: int
    rows: int
    hidden: int
    partition: tuple[tuple[str, str | None], ...] = ()

    @property
    def live_bytes(self) -> int:
        """Approximate size of the visible rows."""
        return self.size_bytes * (self.rows - self.hidden) // max(self.rows, 1)

    @property
    def hidden_share(self) -> float:
        """Share of the rows that is hidden, 0 to 1."""
        return self.hidden / max(self.rows, 1)


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Files to join into one, or one file to rewrite, by their indexes in the listing."""

    files: tuple[int, ...]
    bytes_read: int
    hidden_rows: int = field(default=0)


def log_retention(properties: Mapping[str, str], settings: MaintenanceSettings) -> timedelta:
    """Return for how long entries of a table's log stay.

    Without a table property that says so, as long as the files that older versions need.
    """
    text = properties.get("delta.logRetentionDuration")
    if text is None:
        return settings.retention
    interval = interval_in(text)
    return LOG_RETENTION if interval is None else interval


def plan_rewrites(files: Sequence[FileFacts], settings: MaintenanceSettings) -> list[Rewrite]:
    """Return the rewrites that are due and within the budget, the most useful to readers first.

    Every file is in one of them at most. The first one is always included, so that a file larger
    than the budget is not left forever.
    """
    joins = list(_joins(files, settings))
    joined = {at for join in joins for at in join.files}
    purges = [
        _rewrite(files, [at])
        for at, file in enumerate(files)
        if at not in joined and file.hidden and file.hidden_share >= settings.hidden_share
    ]
    purges.sort(key=lambda one: -one.hidden_rows)
    due: list[Rewrite] = []
    left = settings.budget_bytes
    for rewrite in [*joins, *purges]:
        if due and rewrite.bytes_read > left:
            continue
        due.append(rewrite)
        left -= rewrite.bytes_read
    return due


def _joins(files: Sequence[FileFacts], settings: MaintenanceSettings) -> Iterable[Rewrite]:
    alike: dict[tuple[object, int], list[int]] = {}
    for at, file in enumerate(files):
        size = sum(file.live_bytes >= bound for bound in SIZES)
        if size < len(SIZES):
            alike.setdefault((file.partition, size), []).append(at)
    for indexes in alike.values():
        if len(indexes) < settings.join_files:
            continue
        for group in _groups(files, indexes, settings.group_bytes):
            if len(group) > 1:
                yield _rewrite(files, group)


def _groups(
    files: Sequence[FileFacts], indexes: Sequence[int], group_bytes: int
) -> Iterable[list[int]]:
    group: list[int] = []
    for at in indexes:
        if group and sum(files[one].live_bytes for one in [*group, at]) > group_bytes:
            yield group
            group = []
        group.append(at)
    yield group


def _rewrite(files: Sequence[FileFacts], indexes: Sequence[int]) -> Rewrite:
    return Rewrite(
        tuple(indexes),
        sum(files[at].size_bytes for at in indexes),
        sum(files[at].hidden for at in indexes),
    )
