"""Change records as read from a shard, one page at a time."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice, repeat
from operator import lt
from typing import NamedTuple, overload

from datazone_dagster.model.version import SEQUENCE_DIGITS

NO_TIME = -(2**63)
"""`created_at` of a record without `ApproximateCreationDateTime`, which is optional."""

POSITION_DIGITS = 129
"""Most digits of a sequence number of Kinesis (GetShardIterator, `StartingSequenceNumber`)."""


class ChangeRecord(NamedTuple):
    """One stream record. Keys and images are the DynamoDB JSON as it arrived, as UTF-8.

    `created_at` is `ApproximateCreationDateTime` in seconds since 1970, or `NO_TIME`. The service
    floors it to the second: use it for lag, never for order. `position` is the number of the
    record in its shard, where `sequence_number` is none of the shard: see `event_order`.
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
    position: int | None = None


class Texts(Sequence[bytes | None]):
    """UTF-8 texts of many records, concatenated in one buffer.

    One object per image would cost more than all other work on a record.

    Args:
        data: All texts, without separators.
        lengths: Length in bytes per record; 0 where a record has no such text.
    """

    __slots__ = ("data", "lengths")

    def __init__(self, data: bytes, lengths: array[int]) -> None:
        self.data = data
        self.lengths = lengths

    @classmethod
    def of(cls, texts: Iterable[bytes | None]) -> Texts:
        """Concatenate texts.

        Raises:
            UnicodeDecodeError: A text is not UTF-8.
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
    """Change records of one shard in shard order, stored by column.

    At 100,000 records a second, one object per record is too expensive. All columns have the same
    length; `sequence_digits` are padded to 40 digits, so that they sort as numbers. `positions`
    are padded as well; None where sequence numbers are the positions. A `ChangeRecord` is created
    only on access.
    """

    __slots__ = (
        "created_at",
        "event_id",
        "event_name",
        "keys",
        "new_image",
        "old_image",
        "positions",
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
    positions: list[str] | None

    @classmethod
    def of(cls, records: Iterable[ChangeRecord]) -> ChangeRecords:
        """Return the records by column; the argument itself if it is a `ChangeRecords`."""
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
        positions = [row.position for row in rows if row.position is not None]
        columns.positions = [_padded(one, POSITION_DIGITS) for one in positions] or None
        return columns

    @property
    def image_bytes(self) -> int:
        """Size of the images in bytes: nearly all of the records' memory."""
        return len(self.new_image.data) + len(self.old_image.data)

    @property
    def last_position(self) -> int:
        """Position of the last record in its shard; there must be one."""
        return int((self.positions or self.sequence_digits)[-1])

    def newer_than(self, position: int | None) -> ChangeRecords:
        """Return the records after a position in their shard, with strictly increasing ones.

        If that is all of them, the result is `self`: no record object is created.
        """
        digits = self.positions or self.sequence_digits
        width = SEQUENCE_DIGITS if self.positions is None else POSITION_DIGITS
        after = "" if position is None else _padded(position, width)
        if not digits or (after < digits[0] and all(map(lt, digits, islice(digits, 1, None)))):
            return self
        fresh = []
        for record, number in zip(self, digits, strict=True):
            if number > after:
                after = number
                fresh.append(record)
        return ChangeRecords.of(fresh)

    def dated(self, seconds: int) -> tuple[ChangeRecords, int]:
        """Give the records without a time this one (seconds since 1970); return how many had none.

        If every record has a time, the first result is `self`.
        """
        missing = self.created_at.count(NO_TIME)
        if not missing:
            return self, 0
        columns = type(self)()
        for name in self.__slots__:
            setattr(columns, name, getattr(self, name))
        times = (seconds if time == NO_TIME else time for time in self.created_at)
        columns.created_at = array("q", times)
        return columns, missing

    def taken(self, rows: Sequence[int]) -> ChangeRecords:
        """Return the records at these places."""
        every = list(self)
        return ChangeRecords.of([every[at] for at in rows])

    def created_from(self, seconds: int | None) -> ChangeRecords:
        """Return the records created at or after a time (seconds since 1970)."""
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
            repeat(None) if self.positions is None else map(int, self.positions),
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

    __hash__ = None  # type: ignore[assignment]  # unhashable, as a list is

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"


def _padded(number: int, width: int = SEQUENCE_DIGITS) -> str:
    return f"{number:0{width}d}"


class MalformedRecord(NamedTuple):
    """A record that is not a stream record: its raw bytes and the reason.

    `position` is its number in the shard, if that is known whatever is in the record.
    """

    raw: bytes
    reason: str
    sequence_number: int | None = None
    position: int | None = None


class RecordsPage(NamedTuple):
    """One GetRecords response.

    An empty page is not the end of the shard. A `next_iterator` of None is, and the records of
    that page still count.

    Args:
        records: Changes of the table.
        next_iterator: Iterator of the next page; None at the end of the shard.
        body_bytes: Size of the body.
        malformed: Records that are no changes.
        position: Position in the shard that the page reaches, with the records that it leaves
            out; None: that of its last record.
        position_at: Time at which the record at that position arrived, in seconds since 1970; None
            if the service does not say.
        behind_milliseconds: Age of the page's end; 0 at the latest position of the shard, None
            if the service does not say.
        others: Number of changes of other tables, which are left out.
        coarse: Number of changes whose time has milliseconds only.
    """

    records: Sequence[ChangeRecord]
    next_iterator: str | None
    body_bytes: int
    malformed: list[MalformedRecord] = []
    position: int | None = None
    position_at: int | None = None
    behind_milliseconds: int | None = None
    others: int = 0
    coarse: int = 0
