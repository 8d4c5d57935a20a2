"""What a checkpoint of a log needs beside a table's files, metadata and transactions.

Of the removed files, only those since the newest checkpoint are kept in memory: the older ones,
which may be many, are in that checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from datazone_dagster.delta.log_files import Action

REMOVES_KEPT = 10_000
"""Number of removed files that a process keeps; more have come where others make checkpoints."""

_KNOWN = {"add", "remove", "txn", "protocol", "metaData", "domainMetadata", "commitInfo", "cdc"}


@dataclass(frozen=True, slots=True)
class Remainder:
    """Parts of the log up to one version that nothing but a checkpoint needs.

    Args:
        removes: Remove actions since the checkpoint that was read, each with its version.
        is_complete: Whether these are all of them; false if they were too many.
        domains: The newest domainMetadata action of each domain.
        transaction_times: Time of the last transaction of application ids that note it.
        unknown: Kinds of actions that we do not know.
    """

    removes: tuple[tuple[int, Action], ...] = ()
    is_complete: bool = True
    domains: Mapping[str, Action] = field(default_factory=dict)
    transaction_times: Mapping[str, int] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()

    def after(self, version: int, actions: Sequence[Action]) -> Remainder:
        """Return the remainder after some actions of a version."""
        removes = [(version, one["remove"]) for one in actions if one.get("remove") is not None]
        domains = [one["domainMetadata"] for one in actions if one.get("domainMetadata")]
        times = [one["txn"] for one in actions if one.get("txn") is not None]
        timed = {one["appId"]: one.get("lastUpdated") for one in times}
        unknown = {kind for one in actions for kind in one} - _KNOWN
        fits = len(self.removes) + len(removes) <= REMOVES_KEPT
        return Remainder(
            removes=(*self.removes, *removes) if fits else (),
            is_complete=self.is_complete and fits,
            domains={**self.domains, **{one["domain"]: one for one in domains}},
            transaction_times={
                app_id: time
                for app_id, time in {**self.transaction_times, **timed}.items()
                if time is not None
            }
            if timed
            else self.transaction_times,
            unknown=self.unknown | unknown,
        )

    def since(self, version: int) -> Remainder:
        """Return the remainder where the log has a checkpoint of this version."""
        return replace(self, removes=tuple(one for one in self.removes if one[0] > version))
