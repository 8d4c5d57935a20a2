"""Arguments of `build_definitions`, recorded for commands that load a project's code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from datazone_dagster.api import Transform
from datazone_dagster.dagster_glue.options import RunOptions
from datazone_dagster.dagster_glue.resources import DynamoDBStreamsResource, Lakehouse


@dataclass(frozen=True)
class Built:
    """Arguments of one call of `build_definitions`, with defaults filled in."""

    transforms: tuple[Transform, ...]
    lakehouse: Lakehouse
    dynamodb: DynamoDBStreamsResource
    preview: bool
    options: RunOptions


_recordings: list[list[Built]] = []


def record(built: Built) -> None:
    """Add a call of `build_definitions` to every active `watched` block."""
    for calls in _recordings:
        calls.append(built)


@contextmanager
def watched() -> Iterator[list[Built]]:
    """Record the arguments of `build_definitions` calls in the block.

    The arguments are known whatever the code does with the result, such as merging it.
    """
    calls: list[Built] = []
    _recordings.append(calls)
    try:
        yield calls
    finally:
        _recordings.remove(calls)
