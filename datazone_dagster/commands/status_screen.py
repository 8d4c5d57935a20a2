"""The state of a project on one screen, for `status --watch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from datazone_dagster.observe.lag import in_words
from datazone_dagster.text import MESSAGE_CHARS, shown

Found = Mapping[str, Any]

_STYLES = {"ok": "green", "warn": "yellow", "error": "red"}
_DRAINS = {"reads": "", "silent": "bold red", "unknown": "yellow"}


def screen(sources: Sequence[Found], now: datetime) -> RenderableType:
    """Return the screen.

    Args:
        sources: Sources as `status --json` has them.
        now: Present time, in UTC.
    """
    head = Text(f"{now:%Y-%m-%d %H:%M:%S} UTC", style="dim")
    return Group(head, *(part for source in sources for part in _source(source, now)))


def _source(source: Found, now: datetime) -> list[RenderableType]:
    title = Text(f"\nsource {source['source']}", style="bold")
    if not source["drained"]:
        return [title, Text(shown(source["read"]), style="yellow")]
    gaps = [Text(f"open gap: {shown(gap, MESSAGE_CHARS)}", style="red") for gap in source["gaps"]]
    drain = f"drain: batch {source['head_batch']}, {source['shards_open']} shards open, " + (
        "read through an unknown time"
        if source["read_through"] is None
        else f"read through {_ago(source['read_through'], now)}"
    )
    lines = [source["snapshot_line"], source["change_log_line"]]
    return [
        title,
        Text(drain),
        Text(shown(source["drain_line"], MESSAGE_CHARS), style=_DRAINS[source["drain"]]),
        *(Text(shown(one, MESSAGE_CHARS)) for one in lines),
        *gaps,
        *(
            Text(
                f"set {one['name']}: {one['shards']} shards, last batch {one['last_batch']}, "
                + (
                    "nothing to read"
                    if one["read_through"] is None
                    else f"read through {_ago(one['read_through'], now)}"
                )
            )
            for one in source["sets"]
        ),
        _datasets(source["datasets"]),
    ]


def _datasets(datasets: Sequence[Found]) -> Table:
    table = Table("dataset", "rows", "batch", "behind", "complete", "consistent since")
    for one in datasets:
        since = one["consistent_since"]
        table.add_row(
            Text(one["dataset"]),
            f"{one['rows']:,}",
            str(one["position"]),
            Text(str(one["pending_batches"]), style="yellow" if one["pending_batches"] else ""),
            Text(one["complete"], style=_STYLES.get(one["complete"], "")),
            "" if since is None else f"{since:%Y-%m-%d %H:%M:%S} UTC",
        )
    return table


def _ago(time: datetime, now: datetime) -> str:
    return f"{in_words(max(timedelta(), now - time))} ago"
