"""Which version of a function made which rows of a dataset, and what the newest version returns."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

UNKNOWN = ""
"""Version of rows that were made before versions were recorded."""

_SEGMENTS_MAX = 20


@dataclass(frozen=True, slots=True)
class MadeBy:
    """Version of the function that makes the rows of a chunk, and the first batch of the chunk."""

    version: str
    first_batch: int


@dataclass(frozen=True, slots=True)
class FunctionRecord:
    """Versions of a dataset's function, stored with its table.

    Args:
        versions: Each version with the first batch that it made, oldest first.
        returned: Columns that the newest version has returned.
        before: Columns that versions before it have returned, without accepted losses.
    """

    versions: tuple[tuple[str, int], ...] = ()
    returned: tuple[str, ...] = ()
    before: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, text: str | None) -> FunctionRecord:
        """Read a record; an empty one for None."""
        if text is None:
            return cls()
        found = json.loads(text)
        return cls(
            tuple((str(version), int(batch)) for version, batch in found.get("versions", ())),
            tuple(map(str, found.get("returned", ()))),
            tuple(map(str, found.get("before", ()))),
        )

    def to_json(self) -> str:
        """Return the record as text."""
        return json.dumps(
            {"versions": self.versions, "returned": self.returned, "before": self.before}
        )

    def after(self, made_by: MadeBy | None, columns: Iterable[str]) -> FunctionRecord:
        """Return the record with a chunk added.

        Args:
            made_by: Version and first batch of the chunk; None if its version is not recorded.
            columns: Columns that the function returned for it.
        """
        if made_by is None:
            return self
        returned = tuple(sorted(set(columns)))
        if self.versions and self.versions[-1][0] == made_by.version:
            return replace(self, returned=tuple(sorted({*self.returned, *returned})))
        earlier = self.versions
        if not earlier and made_by.first_batch > 1:
            earlier = ((UNKNOWN, 1),)
        if len(earlier) == _SEGMENTS_MAX:
            earlier = (("several", earlier[0][1]), *earlier[2:])
        return FunctionRecord(
            (*earlier, (made_by.version, made_by.first_batch)),
            returned,
            tuple(sorted({*self.before, *self.returned})),
        )

    def as_made_by(self, version: str) -> FunctionRecord:
        """Return the record with all rows, and all losses of columns, accepted for a version."""
        return replace(self, versions=((version, 1),), before=())

    def other_batches(self, version: str, position: int) -> tuple[tuple[int, int], ...]:
        """Return the ranges of batches, up to a position, that another version made."""
        ends = [batch - 1 for _, batch in self.versions[1:]] + [position]
        return tuple(
            (first, last)
            for (other, first), last in zip(self.versions, ends, strict=False)
            if other not in (UNKNOWN, version) and first <= last
        )

    def missing(self, columns: Iterable[str]) -> tuple[str, ...]:
        """Return the columns of a table that only versions before the newest have returned."""
        lost = {name.casefold() for name in self.before}
        lost -= {name.casefold() for name in self.returned}
        return tuple(name for name in columns if name.casefold() in lost)
