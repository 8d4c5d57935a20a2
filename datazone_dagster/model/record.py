"""Change records as they come off a shard, one page at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
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


class ChangeRecords(Sequence[ChangeRecord]):
    """Change records of one shard in its order, held column by column.

    A stream of 100,000 records a second can't afford an object for each of them. The lists are
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

    def __init__(self) -> None:
        self.event_id: list[str] = []
        self.event_name: list[str] = []
        self.sequence_digits: list[str] = []
        self.created_at: list[int] = []
        self.keys: list[bytes] = []
        self.new_image: list[bytes | None] = []
        self.old_image: list[bytes | None] = []
        self.size_bytes: list[int] = []
        self.region: list[str] = []
        self.view_type: list[str] = []
        self.user_type: list[str | None] = []
        self.user_principal: list[str | None] = []

    @classmethod
    def of(cls, records: Iterable[ChangeRecord]) -> ChangeRecords:
        """The records in this form; itself if they are."""
        if isinstance(records, cls):
            return records
        columns = cls()
        for record in records:
            columns.append(record)
        return columns

    def append(self, record: ChangeRecord) -> None:
        """Add one record at the end."""
        self.event_id.append(record.event_id)
        self.event_name.append(record.event_name)
        self.sequence_digits.append(_padded(record.sequence_number))
        self.created_at.append(record.created_at)
        self.keys.append(record.keys)
        self.new_image.append(record.new_image)
        self.old_image.append(record.old_image)
        self.size_bytes.append(record.size_bytes)
        self.region.append(record.region)
        self.view_type.append(record.view_type)
        self.user_type.append(record.user_type)
        self.user_principal.append(record.user_principal)

    def extend(self, more: ChangeRecords) -> None:
        """Add all records of another page at the end."""
        for column in self.__slots__:
            getattr(self, column).extend(getattr(more, column))

    def newer_than(self, sequence_number: int | None) -> ChangeRecords:
        """What a shard that stands at `sequence_number` has not seen: strictly growing numbers.

        Itself, without looking at single records, if that is all of them.
        """
        digits = self.sequence_digits
        after = "" if sequence_number is None else _padded(sequence_number)
        if not digits or (after < digits[0] and all(map(lt, digits, islice(digits, 1, None)))):
            return self
        fresh = ChangeRecords()
        for record, number in zip(self, digits, strict=True):
            if number > after:
                after = number
                fresh.append(record)
        return fresh

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
            self.keys,
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
        if isinstance(index, slice):
            return list(self)[index]
        return ChangeRecord(
            self.event_id[index],
            self.event_name[index],
            int(self.sequence_digits[index]),
            self.created_at[index],
            self.keys[index],
            self.new_image[index],
            self.old_image[index],
            self.size_bytes[index],
            self.region[index],
            self.view_type[index],
            self.user_type[index],
            self.user_principal[index],
        )

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (ChangeRecords, list)):
            return list(self) == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it can be added to

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
