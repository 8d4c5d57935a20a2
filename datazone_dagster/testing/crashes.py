"""Scripted events at a named point of the flow: the process dies, or another one interferes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from datazone_dagster.errors import StorageError
from datazone_dagster.process import crash_points


class Crash(BaseException):
    """Simulated death of the process: no code of the package catches it."""


@contextmanager
def crash_at(point: str, nth: int = 1) -> Iterator[None]:
    """Die within the block when the flow reaches a point of `crash_points` for the nth time."""

    def crash() -> None:
        raise Crash(point)

    with at_point(point, crash, nth):
        yield


@contextmanager
def storage_fails_at(point: str, nth: int = 1) -> Iterator[None]:
    """Fail the store once within the block, when the flow reaches a point for the nth time.

    At a point before a commit, the commit fails. At a point after a commit, the commit succeeds
    but its answer is lost.
    """

    def fail() -> None:
        raise StorageError(f"Scripted: the store fails {point}.")

    with at_point(point, fail, nth):
        yield


@contextmanager
def at_point(point: str, action: Callable[[], object], nth: int = 1) -> Iterator[None]:
    """Run an action within the block when the flow reaches a point for the nth time.

    A second drain or run that the action starts overlaps with the first at the worst moment, the
    same way every time.

    Raises:
        ValueError: The point does not exist.
    """
    known = (
        *crash_points.POINTS,
        *crash_points.OPERATOR_POINTS,
        *crash_points.SNAPSHOT_POINTS,
    )
    if point not in known:
        raise ValueError(f"{point!r} is not a crash point; use one of {', '.join(known)}")
    reached = 0

    def act(at: str) -> None:
        nonlocal reached
        reached += at == point
        if at == point and reached == nth:
            # Points that the action itself reaches are not counted.
            crash_points.hook = before
            action()
            crash_points.hook = act

    before, crash_points.hook = crash_points.hook, act
    try:
        yield
    finally:
        crash_points.hook = before
