"""How far back a change log reaches, in words and numbers."""

from __future__ import annotations

from datazone_dagster.model.log_reach import LogReach
from datazone_dagster.observe.metadata import Plain


def reach_metadata(reach: LogReach) -> dict[str, Plain | None]:
    """Return what is left of a change log, for output as JSON."""
    return {
        "truncated_through": reach.truncated_through,
        "changes_since": reach.changes_since,
        "new_datasets": reach.admits_datasets,
        "snapshot_announced_at": None if reach.base is None else reach.base.announced_at,
    }


def reach_line(source: str, reach: LogReach) -> str:
    """Describe what is left of a change log, and what new and rebuilt datasets begin with."""
    if not reach.truncated_through:
        return "change log: every change, rebuilds reach the first one"
    since = (
        "no change is left"
        if reach.changes_since is None
        else f"changes since {reach.changes_since:%Y-%m-%d %H:%M:%S} UTC"
    )
    if reach.base is None:
        return (
            f"change log: {since}; no dataset can be added or rebuilt before "
            f"`datazone-dagster resync {source}`"
        )
    return (
        f"change log: {since}; new datasets, and rebuilds in merge mode, begin with the snapshot "
        f"of {reach.base.announced_at:%Y-%m-%d %H:%M:%S} UTC"
    )
