"""Folder names of partitions, `column=value`, and the values that have none. Pure.

The Delta log has the value of every partition, but Polars takes it from the folder's name, and
fails on a table in which some folders have none (measured, Polars 1.x). So a value has to be exact
in its folder's name, or must not be in the table.
"""

from __future__ import annotations

from urllib.parse import quote

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"

MOST_BYTES = 255
"""Longest name of a folder in Linux and macOS. Names are percent-encoded, so they are ASCII."""


def folder_name(column: str, value: str | None) -> str:
    """Return the name of a partition's folder, as other writers spell it.

    Args:
        column: Name of the partition column.
        value: Value as spelled in the Delta log; None for null.

    Returns:
        The exact name, unless the value is one that `value_problem` refuses and that an earlier
        version has written: then the name is cut.
    """
    return _name(column, value)[:MOST_BYTES]


def value_problem(column: str, value: str) -> str | None:
    """Return why a text can't be a partition value; None if it can."""
    if not value:
        return f"partition column {column!r} holds an empty text, which Delta Lake reads as null"
    if len(_name(column, value)) > MOST_BYTES:
        return (
            f"partition column {column!r} holds a text whose folder name has more than "
            f"{MOST_BYTES} bytes"
        )
    return None


def encoded_bytes(text: str) -> int:
    """Return the length of a text in a folder's name."""
    return len(quote(text, safe=""))


def _name(column: str, value: str | None) -> str:
    return f"{quote(column, safe='')}={NULL_PARTITION if value is None else quote(value, safe='')}"
