"""What a dataset's table knows beside its rows, by its generation.

A rebuilt table brings its own. They are written before it takes over, so each generation has
them under names of its own: the number of the generation is a Delta transaction version and
changes in the very commit that replaces the rows.
"""

from __future__ import annotations

from deltalake import DeltaTable

ATTRIBUTES = "datazone.attributes"
"""Which item attribute is which column, so that replays agree."""

UNEXPECTED = "datazone.unexpected"
"""Columns that the function returned and the contract keeps out, since when."""

MODE = "datazone.mode"
"""What its rows are: of merge, append or history."""

KEPT = (ATTRIBUTES, UNEXPECTED, MODE)


def rebuild_app_id(source: str) -> str:
    """Whose transaction version counts the rebuilds of a dataset."""
    return f"rebuild/{source}"


def generation_of(table: DeltaTable, source: str) -> int:
    """How often the table was rebuilt."""
    return table.transaction_version(rebuild_app_id(source)) or 0


def property_of(name: str, generation: int) -> str:
    """The name of a property in one generation of the table."""
    return f"{name}.{generation}" if generation else name
