"""What `build_definitions` was given, for commands that load a project's code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from datazone_dagster.api import Transform
from datazone_dagster.dagster_glue.resources import DynamoDBStreamsResource, Lakehouse


@dataclass(frozen=True)
class Built:
    """The arguments of one call of `build_definitions`, defaults filled in."""

    transforms: tuple[Transform, ...]
    lakehouse: Lakehouse
    dynamodb: DynamoDBStreamsResource


_watching: list[list[Built]] = []


def note(built: Built) -> None:
    """Tell whoever watches that definitions were built."""
    for seen in _watching:
        seen.append(built)


@contextmanager
def watched() -> Iterator[list[Built]]:
    """Within the block, gather what `build_definitions` is called with.

    Whatever the code does with the result, merges it or hands it on, its parts are known.
    """
    seen: list[Built] = []
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching.remove(seen)
