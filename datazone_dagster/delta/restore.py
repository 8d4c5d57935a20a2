"""RESTOREs of a table: commits of other programs that bring back the files of an older version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datazone_dagster.delta.log_files import Action


@dataclass(frozen=True, slots=True)
class Restore:
    """A commit that restored a table, and the version it restored; None: a time, or not said."""

    version: int
    target: int | None


def restore_in(version: int, actions: Sequence[Action]) -> Restore | None:
    """Return the RESTORE that a log entry is; None if it is another commit."""
    for action in actions:
        info: Mapping[str, Any] = action.get("commitInfo") or {}
        if info.get("operation") == "RESTORE":
            target = str((info.get("operationParameters") or {}).get("version"))
            return Restore(version, int(target) if target.isdigit() else None)
    return None
