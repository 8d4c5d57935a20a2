"""Change records as they come off a shard, one page at a time."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from operator import lt
from typing import NamedTuple, overload

from datazone_dagster.model.version import SEQUENCE_DIGITS


class ChangeRecord(NamedTuple):
    """One stream record. Keys and images are the DynamoDB JSON as it arrived, as UTF-8.

    `created_at` is `ApproximateCreationDateTime` in seconds since 1970: floored to the
    second by the service, good for lag, never for order.
    """

    event_id: str
    event_name: str
    sequence_number: int
    created_at: int
    keys: bytes
    new_image: bytes | None
    old_image: bytes | None
    size_bytes: int
    region: str
    view_type: str
    user_type: str | None = None
    user_principal: str | None = None


class Texts(Sequence[bytes | None]):
    """UTF-8 texts of many records, one after the other in one piece of memory.

    An object for each image of a stream would cost more than all else that is done to it.

    Args:
        data: All texts, without anything between them.
        lengths: In bytes, one for each record; 0 where it has no such text.
    """

    __slots__ = ("data", "lengths")

    def __init__(self, data: bytes, lengths: array[int]) -> None:
        self.data = data
        self.lengths = lengths

    @classmethod
    def of(cls, texts: Iterable[bytes | None]) -> Texts:
        """The texts in this form.

        Raises:
            UnicodeDecodeError: One is not UTF-8.
        """
        pieces = [text or b"" for text in texts]
        for piece in pieces:
            piece.decode()
        return cls(b"".join(pieces), array("i", map(len, pieces)))

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[bytes | None]:
        for end, length in zip(accumulate(self.lengths), self.lengths, strict=True):
            yield self.data[end - length : end] if length else None

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes | None]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes | None] | None:
        return list(self)[index]


class ChangeRecords(Sequence[ChangeRecord]):
    """Change records of one shard in its order, held column by column.

    A stream of 100,000 records a second can't afford an object for each of them. The columns are
    all of one length; `sequence_digits` are padded to 40 digits, so they sort as numbers do.
    A `ChangeRecord` is made when one is asked for.
    """

    __slots__ = (
        "created_at",
        "event_id",
        "event_name",
        "keys",
        "new_image",
        "old_image",
        "region",
        "sequence_digits",
        "size_bytes",
        "user_principal",
        "user_type",
        "view_type",
    )

    event_id: list[str]
    event_name: list[str]
    sequence_digits: list[str]
    created_at: array[int]
    keys: Texts
    new_image: Texts
    old_image: Texts
    size_bytes: array[int]
    region: list[str]
    view_type: list[str]
    user_type: list[str | None]
    user_principal: list[str | None]

    @classmethod
    def of(cls, records: Iterable[ChangeRecord]) -> ChangeRecords:
        """The records in this form; itself if they are."""
        if isinstance(records, cls):
            return records
        rows = list(records)
        columns = cls()
        columns.event_id = [row.event_id for row in rows]
        columns.event_name = [row.event_name for row in rows]
        columns.sequence_digits = [_padded(row.sequence_number) for row in rows]
        columns.created_at = array("q", [row.created_at for row in rows])
        columns.keys = Texts.of(row.keys for row in rows)
        columns.new_image = Texts.of(row.new_image for row in rows)
        columns.old_image = Texts.of(row.old_image for row in rows)
        columns.size_bytes = array("q", [row.size_bytes for row in rows])
        columns.region = [row.region for row in rows]
        columns.view_type = [row.view_type for row in rows]
        columns.user_type = [row.user_type for row in rows]
        columns.user_principal = [row.user_principal for row in rows]
        return columns

    @property
    def image_bytes(self) -> int:
        """Size of the images: nearly all that the records weigh."""
        return len(self.new_image.data) + len(self.old_image.data)

    def newer_than(self, sequence_number: int | None) -> ChangeRecords:
        """What a shard that stands at `sequence_number` has not seen: strictly growing numbers.

        Itself, without looking at single records, if that is all of them.
        """
        digits = self.sequence_digits
        after = "" if sequence_number is None else _padded(sequence_number)
        if not digits or (after < digits[0] and all(map(lt, digits, islice(digits, 1, None)))):
            return self
        fresh = []
        for record, number in zip(self, digits, strict=True):
            if number > after:
                after = number
                fresh.append(record)
        return ChangeRecords.of(fresh)

    def created_from(self, seconds: int | None) -> ChangeRecords:
        """Without those made before a time (seconds since 1970)."""
        if seconds is None or not self.created_at or min(self.created_at) >= seconds:
            return self
        return ChangeRecords.of([record for record in self if record.created_at >= seconds])

    def __len__(self) -> int:
        return len(self.event_id)

    def __iter__(self) -> Iterator[ChangeRecord]:
        return map(
            ChangeRecord,
            self.event_id,
            self.event_name,
            map(int, self.sequence_digits),
            self.created_at,
            (text or b"" for text in self.keys),
            self.new_image,
            self.old_image,
            self.size_bytes,
            self.region,
            self.view_type,
            self.user_type,
            self.user_principal,
        )

    @overload
    def __getitem__(self, index: int) -> ChangeRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[ChangeRecord]: ...
    def __getitem__(self, index: int | slice) -> ChangeRecord | list[ChangeRecord]:
        return list(self)[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (ChangeRecords, list)):
            return list(self) == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as a list has none

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"


def _padded(sequence_number: int) -> str:
    return f"{sequence_number:0{SEQUENCE_DIGITS}d}"


class MalformedRecord(NamedTuple):
    """A record that is not a stream record: kept raw, with the reason."""

    raw: bytes
    reason: str
    sequence_number: int | None = None


class RecordsPage(NamedTuple):
    """One GetRecords answer.

    An empty page is not the end of the shard; `next_iterator` None is, and the records of
    that page still count.
    """

    records: Sequence[ChangeRecord]
    next_iterator: str | None
    body_bytes: int
    malformed: list[MalformedRecord] = []
