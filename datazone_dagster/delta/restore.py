"""RESTOREs of a table: commits of other programs that bring back the files of an older version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datazone_dagster.delta.log_files import Action, entry_actions, entry_path

if TYPE_CHECKING:
    from datazone_dagster.delta.transaction_log import Snapshot

LOOKED_BACK = 50
"""Entries below a checkpoint that are searched for the last commit of an application."""


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


def last_restore(snapshot: Snapshot, app_id: str) -> Restore | None:
    """Return the last RESTORE since the last commit of an application; None if there is none.

    Entries below the checkpoint are read only if none above it answers the question.

    Raises:
        OSError: The store failed.
    """
    if app_id in snapshot.committed or not snapshot.transaction(app_id):
        return None
    if snapshot.restore is not None or snapshot.checkpoint_version is None:
        return snapshot.restore
    newest = snapshot.checkpoint_version
    for version in range(newest, max(newest - LOOKED_BACK, -1), -1):
        content = snapshot.store.read(entry_path(version))
        actions = [] if content is None else entry_actions(content)
        if not actions or any(one.get("txn", {}).get("appId") == app_id for one in actions):
            return None
        restore = restore_in(version, actions)
        if restore is not None:
            return restore
    return None
