"""Paths of a function by whether their attribute was ever in a record. Pure.

An attribute that some records lack is normal. One that no record had, of enough records, is most
likely a typo. The history is stored with the table, because a run sees a few records only.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

ENOUGH_RECORDS = 100
"""Records without the attribute from which a path counts as a typo."""


@dataclass(frozen=True, slots=True)
class PathHistory:
    """Paths whose attribute was found, and the others with the number of records that lacked it.

    The numbers are lower limits: they are stored when they have doubled.
    """

    found: frozenset[str] = frozenset()
    missing: Mapping[str, int] | None = None

    def after(self, seen: Mapping[str, tuple[int, bool]], records: int) -> PathHistory:
        """Return the history after one more chunk.

        Args:
            seen: Per path the number of records that it was looked for in, and whether one has
                the attribute. A number may count records twice.
            records: Number of records in the chunk.
        """
        found = self.found | {path for path, (_, is_there) in seen.items() if is_there}
        missing = dict(self.missing or {})
        for path, (looked_at, _) in seen.items():
            missing[path] = missing.get(path, 0) + min(looked_at, records)
        return PathHistory(
            found, {path: count for path, count in missing.items() if path not in found}
        )

    def with_those_of(self, saved: PathHistory) -> PathHistory:
        """Return this history with what another process has found and saved since."""
        found, before = self.found | saved.found, saved.missing or {}
        missing = {**before, **(self.missing or {})}
        return PathHistory(
            found,
            {
                path: max(count, before.get(path, 0))
                for path, count in missing.items()
                if path not in found
            },
        )

    def worth_saving(self, saved: PathHistory) -> bool:
        """Return whether this history says more than a saved one, so that a commit is worth it."""
        before = saved.missing or {}
        more = any(
            count >= 2 * before.get(path, 0) and count > before.get(path, 0)
            for path, count in (self.missing or {}).items()
        )
        return more or not self.found <= saved.found

    def never_found(self, paths: Collection[str]) -> tuple[tuple[str, int], ...]:
        """Return those of some paths that enough records lacked, each with their number."""
        return tuple(
            (path, count)
            for path, count in sorted((self.missing or {}).items())
            if path in paths and count >= ENOUGH_RECORDS
        )

    def to_json(self) -> str:
        """Return the history as JSON, always the same for the same history."""
        missing = dict(sorted((self.missing or {}).items()))
        return json.dumps({"found": sorted(self.found), "missing": missing})

    @classmethod
    def from_json(cls, text: str) -> PathHistory:
        """Read a history from JSON."""
        stored = json.loads(text)
        return cls(frozenset(stored["found"]), dict(stored["missing"]))
