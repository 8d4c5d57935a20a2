"""Shards of a scripted stream: lineage, entries, positions in them, pages that they make."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from dataclasses import dataclass, field, replace

from datazone_dagster.errors import SourceError, TrimmedDataError
from datazone_dagster.model.record import ChangeRecord, MalformedRecord
from datazone_dagster.model.service_limits import PAGE_BYTES
from datazone_dagster.model.shard import IteratorStart, Shard, StartAt
from datazone_dagster.testing.scripted_record import text_bytes

_ENVELOPE_BYTES = len('{"Records":[]}')

Entry = ChangeRecord | MalformedRecord


@dataclass
class ScriptedShard:
    """Shard that grows at its end and is trimmed from its start.

    A position in it is a sequence number: the next entry is the first one with a greater number.

    Args:
        shard: Shard as DescribeStream lists it.
        entries: Records in shard order; None makes an empty page.
        numbers: Sequence number of each entry, strictly increasing.
        trimmed_through: Sequence number of the last trimmed entry; 0 if none is.
        gone: Whether the shard has left the listing.
    """

    shard: Shard
    entries: list[Entry | None] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    trimmed_through: int = 0
    gone: bool = False

    def append(self, number: int, entry: Entry | None) -> None:
        """Append an entry."""
        self.numbers.append(number)
        self.entries.append(entry)

    def close(self, number: int) -> None:
        """Close the shard at a sequence number after all its entries."""
        self.shard = replace(self.shard, ending_sequence_number=number)

    def trim(self, through: int | None = None) -> None:
        """Trim the entries up to and including a sequence number, or all of them.

        A closed shard whose entries are all trimmed this way leaves the listing.
        """
        if through is None:
            through = self.numbers[-1] if self.numbers else 0
            self.gone = not self.shard.is_open
        self.trimmed_through = max(self.trimmed_through, through)

    def position(self, start: IteratorStart) -> int:
        """Return the position of a new iterator.

        Raises:
            TrimmedDataError: The sequence number is itself trimmed, whatever follows it.
            SourceError: The sequence number is not within the range of the shard.
        """
        if start.at is StartAt.TRIM_HORIZON:
            return self.trimmed_through
        if start.at is StartAt.LATEST:
            return self.numbers[-1] if self.numbers else 0
        number = start.sequence_number
        assert number is not None
        if number <= self.trimmed_through:
            raise self._trimmed(number)
        first = self.shard.starting_sequence_number or 0
        last = self.shard.ending_sequence_number
        if number < first or (last is not None and number > last):
            raise SourceError(
                f"Sequence number {number} is not within the range of shard "
                f"{self.shard.shard_id}: {first} to {last or 'its end, which is open'}."
            )
        return number

    def page(self, after: int, records_max: int) -> tuple[list[Entry], int, int]:
        """Return the next page after a position, its size in bytes, and the position after it.

        A page ends before an empty page, before `PAGE_BYTES`, and at the latest position.

        Raises:
            TrimmedDataError: An entry after the position is trimmed.
        """
        if after < self.trimmed_through:
            raise self._trimmed(after)
        page: list[Entry] = []
        body_bytes = _ENVELOPE_BYTES
        for index in range(bisect_right(self.numbers, after), len(self.numbers)):
            entry = self.entries[index]
            if entry is None:
                return page, body_bytes, after if page else self.numbers[index]
            entry_bytes = _entry_bytes(entry)
            is_full = len(page) == records_max or body_bytes + entry_bytes > PAGE_BYTES
            if page and is_full:
                break
            page.append(entry)
            body_bytes += entry_bytes
            after = self.numbers[index]
        return page, body_bytes, after

    def ends_at(self, position: int) -> bool:
        """Return whether the shard is closed and has no entry after the position."""
        return not self.shard.is_open and (not self.numbers or self.numbers[-1] <= position)

    def _trimmed(self, position: int) -> TrimmedDataError:
        return TrimmedDataError(
            f"Position {position} in shard {self.shard.shard_id} is trimmed: "
            f"the shard begins after {self.trimmed_through}."
        )


def _entry_bytes(entry: Entry) -> int:
    return len(entry.raw) if isinstance(entry, MalformedRecord) else text_bytes(entry)


@dataclass
class ScriptedShards:
    """Shards of one stream ARN, in creation order.

    Args:
        view_type: View type of the stream.
        shards: Shards by shard id.
        is_enabled: Whether changes are recorded.
    """

    view_type: str
    shards: dict[str, ScriptedShard] = field(default_factory=dict)
    is_enabled: bool = True

    def open_shards(self) -> list[ScriptedShard]:
        """Return the shards that take changes."""
        return [shard for shard in self.shards.values() if shard.shard.is_open]

    def listed(self) -> list[ScriptedShard]:
        """Return the shards that have not vanished."""
        return [shard for shard in self.shards.values() if not shard.gone]

    def is_readable(self) -> bool:
        """Return whether the service still knows the stream."""
        return self.is_enabled or bool(self.listed())

    def shard_of(self, key_name: str) -> ScriptedShard:
        """Return the open shard of a key: a descendant of the root that the key's hash selects.

        So a key stays in its line of shards, whatever splits and rolls.
        """
        digest = int.from_bytes(hashlib.sha256(key_name.encode()).digest(), "big")
        children: dict[str | None, list[ScriptedShard]] = {}
        for shard in self.shards.values():
            children.setdefault(shard.shard.parent_shard_id, []).append(shard)
        at = children[None][digest % len(children[None])]
        while not at.shard.is_open:
            digest //= 7
            own_children = children[at.shard.shard_id]
            at = own_children[digest % len(own_children)]
        return at
