"""A few rows as a Markdown table, safe to show regardless of their origin."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from datazone_dagster.model.column_names import RESERVED_PREFIX
from datazone_dagster.text import shown

MAX_ROWS = 5
MAX_COLUMNS = 12
MAX_CELL_CHARS = 40

MAX_CHARS = 6_000

_ACTIVE = re.compile(r"([\\`*_\[\]!|~:.@])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


def preview_markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """Format at most 5 rows and 12 columns, each value cut to 40 characters, 6 KB in total.

    Values are data: nothing in them becomes a link, an image, HTML or another column. Hidden
    columns are left out.
    """
    shown = rows[:MAX_ROWS]
    names = dict.fromkeys(
        name for row in shown for name in row if not name.startswith(RESERVED_PREFIX)
    )
    columns = list(names)[:MAX_COLUMNS]
    if not columns:
        return ""
    lines = [_line(markdown_cell(name) for name in columns), _line("---" for _ in columns)]
    for row in shown:
        lines.append(_line(_cell(row.get(name)) for name in columns))
        if sum(map(len, lines)) > MAX_CHARS:
            lines.pop()
            break
    hidden = len(names) - len(columns)
    note = f"\n\n{hidden} more columns" if hidden else ""
    return "\n".join(lines) + note


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return markdown_cell(value.isoformat(sep=" ", timespec="seconds"))
    if isinstance(value, bytes):
        return markdown_cell(value[:MAX_CELL_CHARS].hex())
    return markdown_cell(str(value))


def markdown_cell(text: str) -> str:
    """Return a text as a Markdown table cell: one line, shortened, all markup escaped."""
    safe = _ACTIVE.sub(r"\\\1", shown(text, MAX_CELL_CHARS))
    return "".join(_ENTITIES.get(char, char) for char in safe)
