"""A commit that lost the race only to commits of other rows: valid on top of them as it is.

Several writers may share a table, each with rows of its own. The files that a commit removes are
then those of its rows, so the plan of a writer stays right when others add and remove other files:
it is put again, as the next entry, and nothing is read or planned anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from datazone_dagster.delta.live_file import live_file
from datazone_dagster.delta.log_files import Action, entry_actions, entry_path
from datazone_dagster.delta.transaction_log import Anchor, Snapshot
from datazone_dagster.errors import ConcurrentWriterError

ATTEMPTS = 100
"""Attempts at one commit while only commits of other rows come first."""

Independent = Callable[[str], bool]
"""Whether the commits of an application id change other rows than this writer's."""

Identity = tuple[str, str | None]


def rebased(
    snapshot: Snapshot, removes: Collection[Identity], independent: Independent
) -> Snapshot | None:
    """Return the table after the commits since a snapshot, if a commit on it is still valid.

    Args:
        snapshot: Version that the commit was planned on.
        removes: Identities of the logical files that it removes.
        independent: Which writers change other rows.

    Returns:
        None if the commit has to be planned again: files that it removes are gone, a writer
        without an application id has changed rows, or files that no version has were deleted,
        those of a commit that waited too long among them.

    Raises:
        ConcurrentWriterError: A writer that is not independent, or a change of the table's
            metadata or protocol, came first.
        OSError: The store failed.
    """
    entries, anchor, version = list[Sequence[Action]](), snapshot.anchor, snapshot.version
    while (found := snapshot.store.read_identified(entry_path(version + 1))) is not None:
        version += 1
        actions = entry_actions(found[0])
        reason = _why_not_independent(actions, independent)
        if reason is not None:
            raise ConcurrentWriterError(
                f"Committing to {snapshot.store.uri}: {reason} in version {version}.",
                safe="Nothing of this attempt is in the table; the other writer's commit is "
                "intact.",
                hint="This attempt lost the commit race; the next one continues from the new "
                "state.",
            )
        if _is_vacuum(actions) or not _leaves_alone(actions, removes):
            return None
        entries.append(actions)
        anchor = Anchor(entry_path(version), found[1])
    return snapshot.after(entries, anchor) if entries else None


def _why_not_independent(actions: Sequence[Action], independent: Independent) -> str | None:
    """Return why an entry may concern the rows of this writer; None if it does not."""
    if any("metaData" in action or "protocol" in action for action in actions):
        return "another writer changed the table's metadata"
    if all(independent(action["txn"]["appId"]) for action in actions if "txn" in action):
        return None
    return "another run changed the same rows"


def _leaves_alone(actions: Sequence[Action], removes: Collection[Identity]) -> bool:
    """Return whether an entry removes none of these files, and is known not to add such rows."""
    removed = (live_file(action["remove"]).identity for action in actions if "remove" in action)
    if any(identity in removes for identity in removed):
        return False
    changes = (one for action in actions for name, one in action.items() if name in _FILES)
    only_moves = all(not change.get("dataChange", True) for change in changes)
    return only_moves or any("txn" in action for action in actions)


def _is_vacuum(actions: Sequence[Action]) -> bool:
    """Return whether an entry says that files without a version were deleted, or will be."""
    infos = (action.get("commitInfo") or {} for action in actions)
    return any(str(info.get("operation")).startswith("VACUUM") for info in infos)


_FILES = ("add", "remove")
