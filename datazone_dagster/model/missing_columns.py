"""Text about columns that an expectation names and the rows of its dataset do not have. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from datazone_dagster.text import shown


def missing_columns_text(missing: Sequence[str], columns: Sequence[str]) -> str:
    """Return what is missing, how it counts, and what to do.

    Args:
        missing: Columns that the expectation names and the rows lack, at least one.
        columns: Columns that there are.
    """
    names = ", ".join(f'"{shown(name)}"' for name in missing)
    return (
        f"There is no column {names}: it counts as null. "
        f"Available columns: {', '.join(map(shown, columns))}. "
        "Correct a misspelt name; otherwise the column comes with the first item that has it."
    )
