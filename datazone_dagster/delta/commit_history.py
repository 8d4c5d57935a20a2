"""The newest commits of a table, from the log entries that a process has read or written anyway.

Writers name their metrics differently: `numTargetRowsInserted` is Delta's own name for a MERGE,
`num_target_rows_inserted` that of delta-rs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from datazone_dagster.delta.log_files import Action
from datazone_dagster.model.table_commit import TableCommit

COMMITS_KEPT = 10

_INSERTED = ("numtargetrowsinserted", "numaddedrows", "numoutputrows")
_UPDATED = ("numtargetrowsupdated", "numupdatedrows")
_DELETED = ("numtargetrowsdeleted", "numdeletedrows")


def with_commit(
    history: tuple[TableCommit, ...], version: int, actions: Sequence[Action]
) -> tuple[TableCommit, ...]:
    """Return the newest ten commits after a log entry, the oldest first."""
    info: Mapping[str, Any] = next(
        (one["commitInfo"] for one in actions if one.get("commitInfo")), {}
    )
    metrics = _metrics(info.get("operationMetrics"))
    commit = TableCommit(
        version,
        _time(info.get("timestamp")),
        str(info.get("operation") or ""),
        inserted=_first(metrics, _INSERTED),
        updated=_first(metrics, _UPDATED),
        deleted=_first(metrics, _DELETED),
    )
    return (*history, commit)[-COMMITS_KEPT:]


def _metrics(found: object) -> dict[str, int]:
    """Return the whole numbers among the metrics, by their names in one spelling."""
    if not isinstance(found, Mapping):
        return {}
    return {
        str(name).replace("_", "").lower(): int(str(value))
        for name, value in found.items()
        if str(value).isdecimal()
    }


def _first(metrics: Mapping[str, int], names: Sequence[str]) -> int | None:
    return next((metrics[name] for name in names if name in metrics), None)


def _time(milliseconds: object) -> datetime | None:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int):
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    except (OverflowError, OSError, ValueError):  # no time that a calendar knows
        return None
