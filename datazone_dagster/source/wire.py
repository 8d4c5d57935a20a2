"""Conversion of the body of a GetRecords response to a page of change records.

Keys and images are sliced out of the body as they arrived. No object is built for them, so a
number keeps every digit and a page costs a few milliseconds. A valid page is checked and
converted to columns at once; only a page with an error is read record by record.
"""

from __future__ import annotations

import json
from array import array
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from datazone_dagster.errors import ServiceUnavailableError
from datazone_dagster.model.record import (
    NO_TIME,
    ChangeRecord,
    ChangeRecords,
    MalformedRecord,
    RecordsPage,
    Texts,
)
from datazone_dagster.model.service_limits import NESTING_LEVELS
from datazone_dagster.model.version import SEQUENCE_DIGITS
from datazone_dagster.source.split import split_records, text_member
from datazone_dagster.text import shown

YEAR_10000 = 253_402_300_800
_OPENING_BRACE = ord("{")
_SHORTEST_KEYS = len('{"k":{"S":"v"}}') - 1
"""Minimum length of keys with an attribute; shorter text may be an empty object with spaces."""


class UserIdentity(msgspec.Struct, gc=False):
    """User identity. Capitalised on the wire; Lambda and the documentation use lower case."""

    type: str | None = msgspec.field(name="Type", default=None)
    principal_id: str | None = msgspec.field(name="PrincipalId", default=None)
    lower_type: str | None = msgspec.field(name="type", default=None)
    lower_principal_id: str | None = msgspec.field(name="principalId", default=None)


class _StreamRecord(msgspec.Struct, rename="pascal", gc=False):
    sequence_number: str
    keys: msgspec.Raw
    approximate_creation_date_time: float | None = None
    new_image: msgspec.Raw = msgspec.Raw()
    old_image: msgspec.Raw = msgspec.Raw()
    size_bytes: int = 0
    stream_view_type: str = ""


class _Record(msgspec.Struct, rename="camel", gc=False):
    event_name: Literal["INSERT", "MODIFY", "REMOVE"]
    dynamodb: _StreamRecord
    event_id: str = msgspec.field(name="eventID", default="")
    aws_region: str = ""
    user_identity: UserIdentity | None = None


class _Page(msgspec.Struct, rename="pascal", gc=False):
    records: list[_Record] | UnsetType | None = UNSET
    next_shard_iterator: str | UnsetType | None = UNSET


class _Envelope(msgspec.Struct, rename="pascal", gc=False):
    """A page with its records unparsed."""

    records: list[msgspec.Raw] | UnsetType | None = UNSET
    next_shard_iterator: str | UnsetType | None = UNSET


class NotAStreamRecordError(ValueError):
    """A record breaks a rule; the message is the reason shown in the quarantine."""


TOO_DEEP = (
    "the record is nested too deep to be read: an item of DynamoDB has at most "
    f"{NESTING_LEVELS} levels"
)

_decode_page = msgspec.json.Decoder(_Page).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_record = msgspec.json.Decoder(_Record).decode

_BAD_RECORD = (msgspec.DecodeError, NotAStreamRecordError, UnicodeDecodeError, RecursionError)


def parse_page(body: bytes, call: str = "GetRecords") -> RecordsPage:
    """Return the page in a GetRecords body.

    A record that is not a stream record does not fail its page: it goes to
    `RecordsPage.malformed` with its raw form and the reason, and the others stay in order.

    Args:
        body: JSON body of a successful response.
        call: Description of the call, for the error text.

    Raises:
        ServiceUnavailableError: The body is not a response of GetRecords. `Records` is optional:
            without it, a page has none. A response without `NextShardIterator` as well is
            refused: it would be read as the end of the shard.
    """
    try:
        check_utf8(body)
        page = _decode_page(body)
        if page.records is UNSET and page.next_shard_iterator is UNSET:
            raise not_an_answer(body, call, "has no list of Records and no NextShardIterator")
        records = _columns(page.records or [])
    except _BAD_RECORD:
        return _parse_one_by_one(body, call)
    return RecordsPage(records, page.next_shard_iterator or None, len(body), [])


def check_utf8(body: bytes) -> None:
    """Check that the body is UTF-8: msgspec slices images without decoding them."""
    if not body.isascii():
        body.decode("utf-8")


def _columns(records: list[_Record]) -> ChangeRecords:
    """Convert all records of a page, by the rules of `_change` applied column by column.

    Raises:
        NotAStreamRecordError: A record may break a rule; `_change` finds out which one.
    """
    stream_records = [record.dynamodb for record in records]
    columns = ChangeRecords()
    digits = [record.sequence_number for record in stream_records]
    columns.sequence_digits = [number.zfill(SEQUENCE_DIGITS) for number in digits]
    columns.event_id = [record.event_id for record in records]
    columns.event_name = [record.event_name for record in records]
    columns.keys = _joined([record.keys for record in stream_records])
    columns.new_image = _joined([record.new_image for record in stream_records])
    columns.old_image = _joined([record.old_image for record in stream_records])
    columns.size_bytes = array("q", [record.size_bytes for record in stream_records])
    columns.region = [record.aws_region for record in records]
    columns.view_type = [record.stream_view_type for record in stream_records]
    columns.positions = None
    identities = [record.user_identity for record in records]
    columns.user_type = [i.type or i.lower_type if i else None for i in identities]
    columns.user_principal = [
        i.principal_id or i.lower_principal_id if i else None for i in identities
    ]
    times = [record.approximate_creation_date_time for record in stream_records]
    known_times = np.array([time for time in times if time is not None], np.float64)
    if records and not (
        _are_times(known_times)
        and "" not in digits
        and _are_sequence_numbers(columns.sequence_digits)
        and min(columns.keys.lengths) >= _SHORTEST_KEYS
        and _are_objects(columns.keys)
        and _are_objects(columns.new_image)
        and _are_objects(columns.old_image)
        and not _lacks_a_new_image(columns)
    ):
        raise NotAStreamRecordError("a record of the page breaks a rule")
    if len(known_times) == len(times):
        columns.created_at = array("q", known_times.astype(np.int64).tobytes())
    else:
        columns.created_at = array("q", map(_seconds, times))
    return columns


def _are_times(times: np.ndarray[Any, Any]) -> bool:
    return not len(times) or bool(times.min() >= 0 and times.max() < YEAR_10000)


def _seconds(time: float | None) -> int:
    return NO_TIME if time is None else int(time)


def _joined(slices: list[msgspec.Raw]) -> Texts:
    """Join slices of the checked body: one copy, and no object per slice."""
    return Texts(b"".join(slices), array("i", map(len, slices)))


def _are_sequence_numbers(padded: list[str]) -> bool:
    """Return whether each text is digits only, and not longer than a sequence number."""
    joined = "".join(padded).encode()
    return joined.isdigit() and len(joined) == SEQUENCE_DIGITS * len(padded)


def _are_objects(texts: Texts) -> bool:
    """Return whether each text that is not empty begins like a JSON object."""
    lengths = np.frombuffer(texts.lengths, np.int32)
    starts = (lengths.cumsum() - lengths)[lengths > 0]
    return bool((np.frombuffer(texts.data, np.uint8)[starts] == _OPENING_BRACE).all())


def _lacks_a_new_image(columns: ChangeRecords) -> bool:
    return 0 in columns.new_image.lengths and any(
        length == 0 and event_name != "REMOVE"
        for length, event_name in zip(columns.new_image.lengths, columns.event_name, strict=True)
    )


def _change(record: _Record) -> ChangeRecord:
    stream_record = record.dynamodb
    created_at = stream_record.approximate_creation_date_time
    if created_at is not None and not 0 <= created_at < YEAR_10000:
        raise NotAStreamRecordError(f"ApproximateCreationDateTime {created_at} is not a time")
    new_image = json_object(stream_record.new_image, "NewImage")
    keys = checked_keys(json_object(stream_record.keys, "Keys"), new_image, record.event_name)
    identity = record.user_identity
    return ChangeRecord(
        event_id=record.event_id,
        event_name=record.event_name,
        sequence_number=_sequence_number(stream_record.sequence_number),
        created_at=_seconds(created_at),
        keys=keys,
        new_image=new_image,
        old_image=json_object(stream_record.old_image, "OldImage"),
        size_bytes=stream_record.size_bytes,
        region=record.aws_region,
        view_type=stream_record.stream_view_type,
        user_type=(identity.type or identity.lower_type) if identity else None,
        user_principal=(identity.principal_id or identity.lower_principal_id) if identity else None,
    )


def checked_keys(keys: bytes | None, new_image: bytes | None, event_name: str) -> bytes:
    """Return the keys of a change that has all that its kind needs.

    Raises:
        NotAStreamRecordError: The keys are empty, or the new image of a write is missing: reading
            it as an empty image would blank the row.
    """
    if keys is None or not keys[1:-1].strip():
        raise NotAStreamRecordError("Keys is empty")
    if new_image is None and event_name != "REMOVE":
        raise NotAStreamRecordError(f"{shown(event_name, 60)} without NewImage")
    return keys


def json_object(raw: msgspec.Raw, name: str) -> bytes | None:
    """Return the JSON object as it arrived; None if it is absent or null."""
    text = bytes(raw)
    if text.startswith(b"{"):
        return text
    if text in (b"", b"null"):
        return None
    raise NotAStreamRecordError(f"{name} is not an object")


def _sequence_number(digits: str) -> int:
    # int() would accept signs, spaces, underscores and the digits of every script.
    if digits.isascii() and digits.isdigit() and len(digits) <= SEQUENCE_DIGITS:
        return int(digits)
    raise NotAStreamRecordError(f"SequenceNumber {digits[:60]!r} is not a number of 1-40 digits")


def _parse_one_by_one(body: bytes, call: str) -> RecordsPage:
    """Read a page with an error in it record by record, which is slower."""
    raw_records, next_iterator = _split(body, call)
    records: list[ChangeRecord] = []
    malformed: list[MalformedRecord] = []
    for raw in raw_records:
        try:
            check_utf8(raw)
            records.append(_change(_decode_record(raw)))
        except _BAD_RECORD as error:
            reason = TOO_DEEP if isinstance(error, RecursionError) else str(error)
            malformed.append(MalformedRecord(raw, reason, _salvaged_number(raw)))
    return RecordsPage(ChangeRecords.of(records), next_iterator, len(body), malformed)


def _split(body: bytes, call: str) -> tuple[list[bytes], str | None]:
    try:
        envelope = _decode_envelope(body)
        raw_records = [bytes(raw) for raw in envelope.records or ()]
        return raw_records, envelope.next_shard_iterator or None
    except (msgspec.DecodeError, RecursionError):
        return _split_leniently(body, call)


def _split_leniently(body: bytes, call: str) -> tuple[list[bytes], str | None]:
    """Split with the standard library, which accepts a lone surrogate escape; msgspec does not.

    One such record must not stop its shard for good.
    """
    try:
        page = json.loads(body.decode("utf-8", "surrogateescape"))
    except RecursionError:
        return _split_unparsed(body, call)
    except ValueError:
        raise not_an_answer(body, call, "is not JSON") from None
    if not isinstance(page, dict) or not isinstance(page.get("Records"), list):
        raise not_an_answer(body, call, "has no list of Records")
    next_iterator = page.get("NextShardIterator")
    if next_iterator is not None and not isinstance(next_iterator, str):
        raise not_an_answer(body, call, "has a NextShardIterator that is not a string")
    return [json.dumps(record).encode("ascii") for record in page["Records"]], next_iterator


def _split_unparsed(body: bytes, call: str) -> tuple[list[bytes], str | None]:
    """Split a page with a record that is nested too deep for a parser."""
    found = split_records(body)
    if found is None:
        raise not_an_answer(body, call, "is not JSON")
    envelope, records = found
    try:
        return records, _decode_envelope(envelope).next_shard_iterator or None
    except (msgspec.DecodeError, RecursionError):
        raise not_an_answer(body, call, "is not a page of GetRecords") from None


def _salvaged_number(raw: bytes) -> int | None:
    """Return the sequence number of a malformed record, if it can be read."""
    try:
        record = json.loads(raw.decode("utf-8", "surrogateescape"))
        number = record["dynamodb"]["SequenceNumber"]
        return _sequence_number(number) if isinstance(number, str) else None
    except RecursionError:
        number = text_member(raw, "dynamodb", "SequenceNumber")
    except (ValueError, TypeError, LookupError):
        return None
    try:
        return None if number is None else _sequence_number(number)
    except NotAStreamRecordError:
        return None


def not_an_answer(body: bytes, call: str, fault: str) -> ServiceUnavailableError:
    """Return the error for a body that is not a response of GetRecords."""
    return ServiceUnavailableError(
        f"{call}: the response ({len(body)} bytes, starting with {body[:20]!r}) {fault}.",
        safe="No position moved; the same page is read again.",
        hint="If it persists, look for a proxy between this process and the service, "
        "and check the endpoint URL.",
    )
