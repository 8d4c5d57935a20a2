"""Which files of a table are written anew, and when. Pure.

Each merge adds a small file and hides rows of others; readers pay for both. A file is written
anew when a good share of its rows is hidden, and small files are joined when there are enough
of about one size, so that a row is rewritten a few times in its life and not with every merge.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from datazone_dagster.errors import DefinitionError

MIB = 1 << 20

SIZES = (4 * MIB, 32 * MIB)
"""Bounds between tiny, middling and full-size files; full-size ones are not joined."""


@dataclass(frozen=True, slots=True)
class MaintenanceSettings:
    """When maintenance acts, and how much it may do at a time.

    Args:
        join_files: Files of about one size, in one partition, that are joined.
        hidden_share: Of a file's rows: from it on the file is written anew without them.
        checkpoint_commits: Commits after which a Delta checkpoint is made.
        group_bytes: Of files that are joined into one, compressed; they are sorted in memory.
        budget_bytes: Of files read in one run of maintenance.
        budget_seconds: No further piece begins after them.
        retention: How long replaced files stay for readers of older versions; never under a day.
        clean_every: Between two searches for files that nothing refers to.

    Raises:
        DefinitionError: `retention` is shorter than a day.
    """

    join_files: int = 8
    hidden_share: float = 0.05
    checkpoint_commits: int = 25
    group_bytes: int = 64 * MIB
    budget_bytes: int = 256 * MIB
    budget_seconds: float = 20.0
    retention: timedelta = timedelta(days=7)
    clean_every: timedelta = timedelta(days=1)

    def __post_init__(self) -> None:
        """Check what can't be undone: a run at work has files that nothing refers to yet."""
        if self.retention < timedelta(days=1):
            raise DefinitionError(
                f"MaintenanceSettings: retention={self.retention} is too short.",
                hint="Keep files for a day or more: younger ones may be of a run at work.",
            )


THOROUGH = MaintenanceSettings(
    join_files=2,
    hidden_share=0.01,
    checkpoint_commits=2,
    budget_bytes=64 << 30,
    budget_seconds=1800.0,
    clean_every=timedelta(0),
)
"""For quiet hours and for the command: whatever is worth doing."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What the log says of one file."""

    size_bytes: int
    rows: int
    hidden: int
    partition: tuple[tuple[str, str | None], ...] = ()

    @property
    def live_bytes(self) -> int:
        """About the size that its visible rows have."""
        return self.size_bytes * (self.rows - self.hidden) // max(self.rows, 1)

    @property
    def hidden_share(self) -> float:
        """Of its rows."""
        return self.hidden / max(self.rows, 1)


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Files that become one, or one that is written anew; by their places in the listing."""

    files: tuple[int, ...]
    bytes_read: int
    hidden_rows: int = field(default=0)


def plan_rewrites(files: Sequence[FileFacts], settings: MaintenanceSettings) -> list[Rewrite]:
    """The rewrites that are due, the ones that help readers most first, within the budget.

    Every file is in one of them at most. The first one is always done, so that a file that is
    larger than the budget is not left for good.
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
    for places in alike.values():
        if len(places) < settings.join_files:
            continue
        for group in _groups(files, places, settings.group_bytes):
            if len(group) > 1:
                yield _rewrite(files, group)


def _groups(
    files: Sequence[FileFacts], places: Sequence[int], group_bytes: int
) -> Iterable[list[int]]:
    group: list[int] = []
    for at in places:
        if group and sum(files[one].live_bytes for one in [*group, at]) > group_bytes:
            yield group
            group = []
        group.append(at)
    yield group


def _rewrite(files: Sequence[FileFacts], places: Sequence[int]) -> Rewrite:
    return Rewrite(
        tuple(places),
        sum(files[at].size_bytes for at in places),
        sum(files[at].hidden for at in places),
    )
