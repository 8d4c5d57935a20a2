"""Conversion of the body of a GetRecords response of Kinesis to a page of change records.

DynamoDB puts one JSON object per change into a Kinesis stream ("Kinesis Data Streams for DynamoDB"
in the developer guide). It has no sequence number of the change: that of Kinesis is the record's
position in its shard, and a change that is delivered twice has two of them. Binary attributes are
in base64 twice.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from datazone_dagster.model.event_order import order_number
from datazone_dagster.model.record import (
    POSITION_DIGITS,
    ChangeRecord,
    ChangeRecords,
    MalformedRecord,
    RecordsPage,
)
from datazone_dagster.source.wire import (
    TOO_DEEP,
    YEAR_10000,
    NotAStreamRecordError,
    UserIdentity,
    check_utf8,
    checked_keys,
    json_object,
    not_an_answer,
)

VIEW_TYPE = "NEW_AND_OLD_IMAGES"
"""Kinesis always gets both images."""

FORMAT_MEMBER = b'"recordFormat"'
"""Member that a record in a Kinesis stream has, and one of a DynamoDB stream has not."""

_MICROSECONDS = 1_000_000
_BINARY = (b'"B"', b'"BS"')


class _Envelope(msgspec.Struct, rename="pascal", gc=False):
    sequence_number: str
    data: bytes
    approximate_arrival_timestamp: float | None = None


class _Page(msgspec.Struct, rename="pascal", gc=False):
    records: list[_Envelope]
    next_shard_iterator: str | None = None
    millis_behind_latest: int | None = None


class _Change(msgspec.Struct, rename="pascal", gc=False):
    keys: msgspec.Raw
    approximate_creation_date_time: int
    approximate_creation_date_time_precision: Literal["MILLISECOND", "MICROSECOND"] = "MILLISECOND"
    new_image: msgspec.Raw = msgspec.Raw()
    old_image: msgspec.Raw = msgspec.Raw()
    size_bytes: int = 0

    @property
    def is_coarse(self) -> bool:
        return self.approximate_creation_date_time_precision == "MILLISECOND"


class _Record(msgspec.Struct, rename="camel", gc=False):
    event_name: Literal["INSERT", "MODIFY", "REMOVE"]
    dynamodb: _Change
    table_name: str
    event_id: str = msgspec.field(name="eventID")
    aws_region: str = ""
    user_identity: UserIdentity | None = None


class _Moment(msgspec.Struct, rename="pascal", gc=False):
    approximate_creation_date_time: int
    approximate_creation_date_time_precision: Literal["MILLISECOND", "MICROSECOND"] = "MILLISECOND"


class _OrderOnly(msgspec.Struct, rename="camel", gc=False):
    dynamodb: _Moment
    event_id: str = msgspec.field(name="eventID")


class _TableOnly(msgspec.Struct, rename="camel", gc=False):
    table_name: str | None = None


_decode_page = msgspec.json.Decoder(_Page).decode
_decode_record = msgspec.json.Decoder(_Record).decode
_decode_order = msgspec.json.Decoder(_OrderOnly).decode
_decode_table = msgspec.json.Decoder(_TableOnly).decode
_BAD_RECORD = (msgspec.DecodeError, NotAStreamRecordError, UnicodeDecodeError, RecursionError)


def parse_kinesis_page(body: bytes, table_name: str, call: str = "GetRecords") -> RecordsPage:
    """Return the page in a GetRecords body of Kinesis.

    Changes of other tables, which may share the stream, are left out and counted. What is no change
    of DynamoDB goes to `RecordsPage.malformed`. All of them count for the position of the page.

    Args:
        body: JSON body of a successful response.
        table_name: Table whose changes are wanted.
        call: Description of the call, for the error text.

    Raises:
        ServiceUnavailableError: The body is not a response of GetRecords.
    """
    try:
        page = _decode_page(body)
        positions = [_position(envelope.sequence_number) for envelope in page.records]
    except (msgspec.DecodeError, NotAStreamRecordError, UnicodeDecodeError):
        raise not_an_answer(body, call, "is not a page of Kinesis") from None
    changes: list[ChangeRecord] = []
    malformed: list[MalformedRecord] = []
    others = coarse = 0
    for envelope, position in zip(page.records, positions, strict=True):
        data = envelope.data
        try:
            check_utf8(data)
            record = _decode_record(data)
            if record.table_name != table_name:
                others += 1
                continue
            changes.append(_change(record)._replace(position=position))
            coarse += record.dynamodb.is_coarse
        except _BAD_RECORD as error:
            if _is_of_another(data, table_name):
                others += 1
                continue
            reason = TOO_DEEP if isinstance(error, RecursionError) else str(error)
            malformed.append(MalformedRecord(data, reason, _salvaged_number(data), position))
    return RecordsPage(
        ChangeRecords.of(changes),
        page.next_shard_iterator,
        len(body),
        malformed,
        position=positions[-1] if positions else None,
        position_at=_arrived_at(page.records),
        behind_milliseconds=page.millis_behind_latest,
        others=others,
        coarse=coarse,
    )


def parse_kinesis_record(data: bytes) -> ChangeRecord:
    """Return the change in one record of a Kinesis stream, without its position.

    Raises:
        NotAStreamRecordError: It is not a change of DynamoDB.
    """
    try:
        check_utf8(data)
        return _change(_decode_record(data))
    except _BAD_RECORD as error:
        raise NotAStreamRecordError(str(error)) from None


def _arrived_at(records: list[_Envelope]) -> int | None:
    at = records[-1].approximate_arrival_timestamp if records else None
    return int(at) if at is not None and 0 <= at < YEAR_10000 else None


def _position(digits: str) -> int:
    if digits.isascii() and digits.isdigit() and len(digits) <= POSITION_DIGITS:
        return int(digits)
    raise NotAStreamRecordError(f"SequenceNumber {digits[:60]!r} is not a number")


def _is_of_another(data: bytes, table_name: str) -> bool:
    """Return whether a record that can't be read names another table."""
    try:
        return _decode_table(data).table_name not in (None, table_name)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _salvaged_number(data: bytes) -> int | None:
    """Return the order number of a malformed record, if it can be read: a redrive needs it."""
    try:
        order = _decode_order(data)
        return order_number(_microseconds(order.dynamodb), order.event_id)
    except _BAD_RECORD:
        return None


def _microseconds(change: _Change | _Moment) -> int:
    is_coarse = change.approximate_creation_date_time_precision == "MILLISECOND"
    time = change.approximate_creation_date_time * (1_000 if is_coarse else 1)
    if not 0 <= time < YEAR_10000 * _MICROSECONDS:
        raise NotAStreamRecordError(f"ApproximateCreationDateTime {time} is not a time")
    return time


def _change(record: _Record) -> ChangeRecord:
    change = record.dynamodb
    time = _microseconds(change)
    if not record.event_id:
        raise NotAStreamRecordError("eventID is empty")
    new_image = _item(change.new_image, "NewImage")
    keys = checked_keys(_item(change.keys, "Keys"), new_image, record.event_name)
    identity = record.user_identity
    return ChangeRecord(
        event_id=record.event_id,
        event_name=record.event_name,
        sequence_number=order_number(time, record.event_id),
        created_at=time // _MICROSECONDS,
        keys=keys,
        new_image=new_image,
        old_image=_item(change.old_image, "OldImage"),
        size_bytes=change.size_bytes,
        region=record.aws_region,
        view_type=VIEW_TYPE,
        user_type=(identity.type or identity.lower_type) if identity else None,
        user_principal=(identity.principal_id or identity.lower_principal_id) if identity else None,
    )


def _item(raw: msgspec.Raw, name: str) -> bytes | None:
    """Return the JSON of an item with its binary values in base64 once."""
    text = json_object(raw, name)
    if text is None or not any(kind in text for kind in _BINARY):
        return text
    item = msgspec.json.decode(text)
    return msgspec.json.encode({key: _attribute(value) for key, value in item.items()})


def _attribute(value: Any) -> Any:
    if not isinstance(value, dict) or len(value) != 1:
        return value
    ((kind, content),) = value.items()
    decode = _OF_KIND.get(kind)
    return value if decode is None else {kind: decode(content)}


def _once(content: Any) -> str:
    try:
        once = base64.b64decode(content, validate=True)
        base64.b64decode(once, validate=True)
        return once.decode("ascii")
    except (binascii.Error, ValueError, TypeError):
        raise NotAStreamRecordError(
            "a binary attribute is not in base64 twice, as DynamoDB writes it to Kinesis"
        ) from None


def _elements(content: Any) -> Any:
    return [_attribute(one) for one in content] if isinstance(content, list) else content


def _members(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    return {name: _attribute(value) for name, value in content.items()}


_OF_KIND: dict[str, Callable[[Any], Any]] = {
    "B": _once,
    "BS": lambda content: [_once(one) for one in content],
    "L": _elements,
    "M": _members,
}
