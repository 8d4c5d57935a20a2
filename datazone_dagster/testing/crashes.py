"""Something happens at a named point of the flow: the process dies, or another one comes by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from datazone_dagster.errors import StorageError
from datazone_dagster.process import crash_points


class Crash(BaseException):
    """Stands for the death of the process: nothing of ours catches it."""


@contextmanager
def crash_at(point: str, nth: int = 1) -> Iterator[None]:
    """Within the block, die at the nth time that the flow reaches a point of `crash_points`."""

    def crash() -> None:
        raise Crash(point)

    with at_point(point, crash, nth):
        yield


@contextmanager
def storage_fails_at(point: str, nth: int = 1) -> Iterator[None]:
    """Within the block, the store fails once, when the flow reaches a point.

    Before a commit: it failed. After one: it happened, but its answer was lost.
    """

    def fail() -> None:
        raise StorageError(f"Scripted: the store fails {point}.")

    with at_point(point, fail, nth):
        yield


@contextmanager
def at_point(point: str, action: Callable[[], object], nth: int = 1) -> Iterator[None]:
    """Within the block, do something at the nth time that the flow reaches a point.

    A second drain or run started there overlaps with the first in the worst moment, the same
    way every time.

    Raises:
        ValueError: There is no such point.
    """
    known = (*crash_points.POINTS, *crash_points.OPERATOR_POINTS)
    if point not in known:
        raise ValueError(f"{point!r} is no crash point; one of {', '.join(known)}")
    reached = 0

    def act(at: str) -> None:
        nonlocal reached
        reached += at == point
        if at == point and reached == nth:
            # What the action itself passes through is not counted.
            crash_points.hook = before
            action()
            crash_points.hook = act

    before, crash_points.hook = crash_points.hook, act
    try:
        yield
    finally:
        crash_points.hook = before
