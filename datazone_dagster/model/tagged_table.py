"""Tables that have a tag, as a search of an account and region finds them."""

from __future__ import annotations

from dataclasses import dataclass

NEW_IMAGE_VIEWS = ("NEW_AND_OLD_IMAGES", "NEW_IMAGE")
"""View types of streams that can be read: those with new images."""


@dataclass(frozen=True, slots=True)
class TableTag:
    """A tag that tables are found by: its key and its value, as they are written in AWS."""

    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


@dataclass(frozen=True, slots=True)
class TaggedTable:
    """One table of a search.

    Args:
        table_name: Name of the table.
        region: Region of the table.
        view_type: View type of its enabled stream; None without one.
    """

    table_name: str
    region: str
    view_type: str | None
