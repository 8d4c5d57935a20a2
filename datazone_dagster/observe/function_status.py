"""The `function` check: rows of other versions of the function, and columns that it lost. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datazone_dagster.model.function_record import FunctionRecord
from datazone_dagster.observe.level import Level
from datazone_dagster.text import shown

_NAMED = 10


@dataclass(frozen=True, slots=True)
class FunctionStatus:
    """Result of the `function` check of a dataset."""

    level: Level
    reason: str
    version: str
    other_batches: int = 0
    columns_lost: int = 0


def function_status(
    record: FunctionRecord,
    version: str,
    *,
    position: int,
    columns: Sequence[str],
    dataset_id: str,
) -> FunctionStatus:
    """Return a warning as long as rows were made by another version, or a column is lost.

    Args:
        record: Versions that made the rows.
        version: Present version of the function.
        position: Last batch that the dataset has applied.
        columns: Columns of the table.
        dataset_id: Id of the dataset, for the message.
    """
    ranges = record.other_batches(version, position)
    missing = record.missing(columns)
    rebuild = f"`datazone-dagster rebuild {dataset_id}`"
    sentences = []
    if ranges:
        listed = _listed([_range(first, last) for first, last in ranges])
        sentences.append(
            f"Rows of {listed} were made by another version of the function. Each stays as it is "
            f"until its item changes. {rebuild} makes all rows with the present function; "
            f"`datazone-dagster accept-function {dataset_id}` leaves them and ends this warning."
        )
    if missing:
        names = _listed([repr(shown(name)) for name in missing])
        verb, them = ("is", "it") if len(missing) == 1 else ("are", "them")
        sentences.append(
            f"{names} {verb} no longer returned by the function: rows that it writes have null "
            f"there, over the value from before. Return {them} again, "
            f"or drop the column with {rebuild}."
        )
    return FunctionStatus(
        Level.WARN if sentences else Level.OK,
        " ".join(sentences) or "All rows were made by the present version of the function.",
        version,
        sum(last - first + 1 for first, last in ranges),
        len(missing),
    )


def _range(first: int, last: int) -> str:
    return f"batch {first}" if first == last else f"batches {first} to {last}"


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return ", ".join(texts[:_NAMED]) + more
