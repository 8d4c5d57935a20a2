"""Table properties stored on a dataset, scoped by rebuild generation.

A rebuilt table has properties of its own. They are written before the swap, so each generation
has them under its own names: the number of the generation is a Delta transaction version and
changes in the commit that replaces the rows.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable

from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket

ATTRIBUTES = "datazone.attributes"
"""Mapping of item attributes to columns, stored so that replays agree."""

UNEXPECTED = "datazone.unexpected"
"""Columns that the function returned and the contract keeps out, each with its first batch."""

MODE = "datazone.mode"
"""Mode of the dataset: merge, append or history."""

FUNCTION = "datazone.function"
"""Versions of the function that made the rows, as a `FunctionRecord`."""

PATHS = "datazone.paths"
"""Paths of the function by whether their attribute was ever in a record."""

SCAN = "datazone.scan"
"""Scan of the DynamoDB table that the rows are from, as `ScanFacts`; `{}` before the first one.
A dataset that is made from changes does not have it."""

START = "datazone.start"
"""Snapshot that the dataset begins with, as `SnapshotBase`; absent: with the first change."""

CHANGE_LOG = "datazone.change_log"
"""Delta id of the change log that the rows are from; absent: an earlier version made them."""

PER_GENERATION = (ATTRIBUTES, UNEXPECTED, MODE, FUNCTION, PATHS, SCAN, START, CHANGE_LOG)


def apply_app_id(source: str, bucket: KeyBucket = WHOLE) -> str:
    """Return the application id whose transaction version is the position of a dataset's bucket."""
    return f"apply/{source}" if bucket.is_whole else f"apply/{source}/{bucket.name}"


def rebuild_app_id(source: str) -> str:
    """Return the application id whose transaction version counts the rebuilds of a dataset."""
    return f"rebuild/{source}"


def erase_app_id(source: str) -> str:
    """Return the application id whose transaction version counts the erasures of a dataset."""
    return f"erase/{source}"


def generation_of(table: Snapshot, source: str) -> int:
    """Return how often the table was rebuilt."""
    return table.transaction(rebuild_app_id(source))


def erasures_of(table: Snapshot, source: str) -> int:
    """Return how often keys were erased from the table."""
    return table.transaction(erase_app_id(source))


def property_of(name: str, generation: int) -> str:
    """Return the name of a property in one generation of the table."""
    return f"{name}.{generation}" if generation else name


def outdated_properties(names: Iterable[str], generation: int) -> tuple[str, ...]:
    """Return the properties of generations before this one: nobody reads them.

    A dataset that each run replaces would gather them without end.
    """
    known = [
        {property_of(name, one) for one in (generation, generation + 1)} for name in PER_GENERATION
    ]
    read = set[str]().union(*known)
    return tuple(
        name
        for name in names
        if name not in read
        and any(name == one or name.startswith(f"{one}.") for one in PER_GENERATION)
    )


def still_unexpected(
    recorded: str | None, columns: Collection[str]
) -> tuple[tuple[str, str, int], ...]:
    """Return the recorded unexpected columns that the table still does not have.

    Args:
        recorded: Value of the property `UNEXPECTED`.
        columns: Columns of the table.

    Returns:
        Name, type and first batch of each.
    """
    return tuple(
        (name, str(kind), int(since))
        for name, (kind, since) in json.loads(recorded or "{}").items()
        if name not in columns
    )
