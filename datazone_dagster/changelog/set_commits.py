"""Commits of several drains to one change log, each with shards of its own.

A batch that lost the race for the next commit is put again, as it is, if none of the commits that
came first concerns its shards. Each of them is looked at, so what was committed decides, and not
who was thought to be alive: a drain that takes over the set of a frozen one, one of another number
of sets, and one of a tick all leave a commit that tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from datazone_dagster.changelog.landed_notes import shards_in
from datazone_dagster.delta.log_files import Action, entry_actions, entry_path
from datazone_dagster.delta.transaction_log import NOTE, Anchor, Snapshot
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.checkpoint import Landed
from datazone_dagster.model.snapshot_state import PROPERTY, SnapshotState
from datazone_dagster.model.source_identity import PROPERTY as OWNER_PROPERTY

LONGEST_SECONDS = 1800.0
"""Time from the start of a batch to its commit, at most. Files that no commit names are deleted
after three hours, and entries of the log after one."""

ATTEMPTS = 100
"""Attempts at one commit while only commits of other shards come first."""


def set_app_id(source: str, name: str) -> str:
    """Return the application id of a set: its version is the number of the set's last batch."""
    return f"drain/{source}/{name}"


@dataclass(frozen=True)
class SetBatch:
    """A batch of the shards of one set, and the version of the change log that it is based on.

    Args:
        source: Name of the source.
        name: Name of the set.
        based_on: Version whose positions the shards were read from.
        clock: Clock in seconds since 1970.
    """

    source: str
    name: str
    based_on: Snapshot
    clock: Callable[[], float] = time.time
    began_at: float = field(init=False)

    def __post_init__(self) -> None:
        """Note when the batch began."""
        object.__setattr__(self, "began_at", self.clock())

    @property
    def app_id(self) -> str:
        """Application id of the set."""
        return set_app_id(self.source, self.name)

    def check_age(self, uri: str) -> None:
        """Raise if the batch began too long ago to be committed, or to trust that it was.

        Raises:
            ConcurrentWriterError: It did.
        """
        if not 0 <= self.clock() - self.began_at <= LONGEST_SECONDS:
            raise _superseded(uri, self.name, f"it began over {LONGEST_SECONDS / 60:.0f} min ago")

    def after_others(self, at: Snapshot, landed: Sequence[Landed]) -> Snapshot:
        """Return the table after the commits since a version; the same one if there are none.

        Args:
            at: Version up to which the commits were looked at.
            landed: Positions that the batch reaches.

        Raises:
            ConcurrentWriterError: One of them concerns the shards of this batch.
            OSError: The store failed.
        """
        entries, anchor, version = list[Sequence[Action]](), at.anchor, at.version
        while (found := at.store.read_identified(entry_path(version + 1))) is not None:
            version += 1
            actions = entry_actions(found[0])
            reason = self._why_superseded(actions, {_shard(one) for one in landed})
            if reason is not None:
                raise _superseded(at.store.uri, self.name, f"{reason} in version {version}")
            entries.append(actions)
            anchor = Anchor(entry_path(version), found[1])
        return at.after(entries, anchor) if entries else at

    def _why_superseded(
        self, actions: Sequence[Action], shards: set[tuple[str, str]]
    ) -> str | None:
        """Return why an entry may concern these shards; None if it does not."""
        info: Action = next((one["commitInfo"] for one in actions if "commitInfo" in one), {})
        if info.get("timestamp", 0) / 1000 - self.began_at > LONGEST_SECONDS:
            return "a commit was made long after this batch began"
        if str(info.get("operation")).startswith(("VACUUM", "RESTORE")):
            return f"there is a {info['operation']}"
        app_ids = {action["txn"]["appId"] for action in actions if "txn" in action}
        return self._why_another_table(actions) or (
            self._why_same_shards(app_ids, shards_in(info.get(NOTE)), shards)
            if f"drain/{self.source}" in app_ids
            else _why_unknown(actions, app_ids)
        )

    def _why_same_shards(
        self,
        app_ids: set[str],
        moved: set[tuple[str, str]] | None,
        shards: set[tuple[str, str]],
    ) -> str | None:
        """Return why a batch may have records of these shards; None if it has none."""
        if self.app_id in app_ids:
            return "another drain of the same set landed a batch"
        if f"scan/{self.source}" in app_ids:
            return None
        if moved is None:
            return "a drain that does not say which shards it read landed a batch"
        return "another drain read one of the same shards" if moved & shards else None

    def _why_another_table(self, actions: Sequence[Action]) -> str | None:
        """Return which change of the table makes the batch invalid; None if there is none."""
        before = self.based_on
        for action in actions:
            if "protocol" in action:
                return "another writer changed the table's protocol"
            metadata = action.get("metaData")
            if metadata is None:
                continue
            configuration = metadata.get("configuration") or {}
            if metadata.get("id") != before.metadata.get("id"):
                return "the table was made again"
            if configuration.get(OWNER_PROPERTY) != before.configuration.get(OWNER_PROPERTY):
                return "the change log got another owner"
            if _epoch(configuration) != _epoch(before.configuration):
                return "a snapshot raised the epoch"
        return None


_FILES = ("add", "remove")


def _why_unknown(actions: Sequence[Action], app_ids: set[str]) -> str | None:
    """Return why an entry that is no batch may have changed rows all the same."""
    changes = (one for action in actions for name, one in action.items() if name in _FILES)
    only_moves = all(not one.get("dataChange", True) for one in changes)
    return None if app_ids or only_moves else "an unknown writer changed rows"


def _epoch(configuration: Mapping[str, str]) -> int:
    text = configuration.get(PROPERTY)
    return 0 if text is None else SnapshotState.from_json(text).epoch


def _shard(one: Landed) -> tuple[str, str]:
    return one.stream_arn, one.shard_id


def _superseded(uri: str, name: str, why: str) -> ConcurrentWriterError:
    return ConcurrentWriterError(
        f"A batch of set {name} can't be landed in the change log at {uri}: {why}.",
        safe="Nothing of this attempt is in the table; what others landed is.",
        hint="The next batch of the set is read from the positions that the change log has now.",
    )


def sets_in(transactions: Mapping[str, int], source: str) -> dict[str, int]:
    """Return the last batch of each set that has landed any, by its name."""
    prefix = set_app_id(source, "")
    return {
        app_id.removeprefix(prefix): batch
        for app_id, batch in transactions.items()
        if app_id.startswith(prefix)
    }
