"""The shards of a stream as a small picture in Markdown, which Dagster's pages render. Pure.

It goes with every materialization of a change log, because a page shows the latest one's metadata:
so its size is bounded, and the shards that need somebody come first.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Sequence

from datazone_dagster.model.shard_tree import ShardNode

MAX_SHARDS = 8
MAX_BYTES = 2_000

_WIDTH, _HEIGHT, _GAP, _STEP = 130, 20, 26, 26
_ORDER = ("gap", "failing", "waiting", "ending", "open", "finished")
_COLOURS = {
    "gap": "#f9c0c0",
    "failing": "#f9c0c0",
    "waiting": "#e6e6e6",
    "ending": "#fbe6b0",
    "open": "#bfe8c5",
    "finished": "#e4ebff",
}
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
_ID_CHARS = 8


def shards_markdown(nodes: Sequence[ShardNode]) -> str:
    """Draw at most 8 shards, a child to the right of its parent; empty if there are none."""
    if not nodes:
        return ""
    urgent = sorted(nodes, key=lambda one: _ORDER.index(one.state))
    chosen = {one.shard_id for one in urgent[:MAX_SHARDS]}
    drawn = [one for one in nodes if one.shard_id in chosen]
    counts = Counter[str](one.state for one in nodes)
    summary = ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state])
    hidden = len(nodes) - len(drawn)
    note = f" ({hidden} more are not drawn)" if hidden else ""
    encoded = base64.b64encode(_svg(drawn).encode()).decode()
    return f"Shards: {summary}{note}\n\n![{summary}](data:image/svg+xml;base64,{encoded})"


def _svg(nodes: Sequence[ShardNode]) -> str:
    places = _places(nodes)
    columns = 1 + max(column for column, _ in places.values())
    rows = 1 + max(row for _, row in places.values())
    width, height = columns * (_WIDTH + _GAP) - _GAP + 2, rows * _STEP
    lines, boxes = [], []
    for node in nodes:
        column, row = places[node.shard_id]
        x, y = column * (_WIDTH + _GAP) + 1, row * _STEP + 3
        if node.parent_id in places:
            above = places[node.parent_id][1] * _STEP + 3 + _HEIGHT // 2
            lines.append(f"M{x - _GAP} {above}L{x} {y + _HEIGHT // 2}")
        boxes.append(
            f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="4" '
            f'fill="{_COLOURS[node.state]}"/><text x="{x + 6}" y="{y + 14}">'
            f"{_UNSAFE.sub('', node.shard_id)[-_ID_CHARS:]} {node.state}</text>"
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11"><path d="{"".join(lines)}" stroke="#888"/>'
        f"{''.join(boxes)}</svg>"
    )


def _places(nodes: Sequence[ShardNode]) -> dict[str, tuple[int, int]]:
    """Return column and row of each shard: roots on the left, children below one another."""
    by_id = {one.shard_id: one for one in nodes}
    children: dict[str | None, list[str]] = {}
    for one in nodes:
        children.setdefault(one.parent_id if one.parent_id in by_id else None, []).append(
            one.shard_id
        )
    places: dict[str, tuple[int, int]] = {}
    row, todo = 0, [(name, 0) for name in reversed(children.get(None, []))]
    while todo:
        name, column = todo.pop()
        below = children.get(name, [])
        places[name] = (column, row)
        row += not below
        todo += [(child, column + 1) for child in reversed(below)]
    unplaced = [one.shard_id for one in nodes if one.shard_id not in places]  # parents in a circle
    return places | {name: (0, row + further) for further, name in enumerate(unplaced)}
