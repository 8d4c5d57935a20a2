"""The facade for several transforms of one source that share a process: each chunk is a turn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from datazone_dagster.api import DynamoDBSource, Transform
from datazone_dagster.apply import ApplySettings
from datazone_dagster.apply.pacing import Following, SharedLooks, Stay, look_every_seconds
from datazone_dagster.apply.run_choice import run_of
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.delta.store_errors import guarded
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, utc_now
from datazone_dagster.model.report import ChunkReport
from datazone_dagster.model.run_report import RunReport
from datazone_dagster.model.turns import Turn

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SharedLog:
    """A change log that several transforms follow: one look at its head serves all of them.

    Args:
        log: The change log.
        layout: Locations of the tables.
        looks: Looks at the head.
    """

    log: ChangeLog
    layout: Layout
    looks: SharedLooks

    @classmethod
    def of(cls, source: DynamoDBSource, layout: Layout) -> SharedLog:
        """Return the change log of a source."""
        looks = SharedLooks(look_every_seconds(remote=layout.is_remote))
        return cls(ChangeLog(layout, source), layout, looks)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Share what is read of the log in the block, also of its large files."""
        store = self.log.table.store
        store.shares_blocks = True
        try:
            yield
        finally:
            store.shares_blocks = False

    @property
    def look_every_seconds(self) -> float:
        """Interval at which new batches are looked for."""
        return look_every_seconds(remote=self.layout.is_remote)


def apply_in_turns(
    transform: Transform,
    shared: SharedLog,
    *,
    must_end: Callable[[], bool] | None,
    settings: ApplySettings = ApplySettings(),
    clock: Clock = utc_now,
    on_chunk: Callable[[ChunkReport], None] | None = None,
    logger: logging.Logger = _logger,
    only: Collection[str] | None = None,
) -> Iterator[RunReport | Turn]:
    """Apply as `follow_changes` does, with a `Turn` after each chunk, and where it would pause.

    The caller pauses in its place, once no transform has anything to do. With `must_end`, which is
    asked several times a turn, it ends only when that returns True, or when another run came first.

    Raises:
        TransformError: As in `apply_transform`; so do the others.
        StorageError: The lakehouse can't be read or written.
    """
    layout = shared.layout
    stay = must_end and Stay(float("inf"), float("inf"), must_end)
    with guarded(layout.uri, "Following the changes of a source"):
        run = run_of(transform)(
            transform,
            layout,
            settings,
            clock,
            on_chunk,
            logger,
            only=only,
            change_log=shared.log,
        )
        following = Following(
            shared.log,
            settings.linger_seconds,
            stay,
            remote=layout.is_remote,
            looks=shared.looks,
            pause=_leave_the_pause_to_the_caller,
        )
        yield from run.turns(following)


def _leave_the_pause_to_the_caller(seconds: float) -> None:
    """Return at once."""
