"""Conversion of the bodies of Scan and BatchGetItem responses to items as raw DynamoDB JSON.

An item is sliced out of the body as it arrived, and its key attributes are sliced out of the item.
No object is built for an attribute, so a number keeps every digit.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import msgspec
from msgspec import UNSET, UnsetType

from datazone_dagster.errors import ServiceUnavailableError, SourceError
from datazone_dagster.model.number import canonical_number
from datazone_dagster.model.service_limits import READ_UNIT_BYTES
from datazone_dagster.model.table_scan import ScannedItem

CanonicalKey = tuple[tuple[str, str, str], ...]
"""Name, type and canonical value of each key attribute, by name: equal keys are equal tuples."""


class _Capacity(msgspec.Struct, rename="pascal", gc=False):
    capacity_units: float | None = None


class _ScanBody(msgspec.Struct, rename="pascal", gc=False):
    items: list[msgspec.Raw] | UnsetType = UNSET
    count: int | None = None
    last_evaluated_key: msgspec.Raw = msgspec.Raw()
    consumed_capacity: _Capacity | None = None


class _Keys(msgspec.Struct, rename="pascal", gc=False):
    keys: list[dict[str, dict[str, str]]] = []


class _BatchBody(msgspec.Struct, rename="pascal", gc=False):
    responses: dict[str, list[msgspec.Raw]] | UnsetType = UNSET
    unprocessed_keys: dict[str, _Keys] | None = None


class ParsedScan(NamedTuple):
    """Items, start key of the next page as JSON, and read units of a Scan response."""

    items: list[ScannedItem]
    next_key: str | None
    read_units: float


class ParsedBatch(NamedTuple):
    """Images by canonical key, and the keys that the service left unprocessed."""

    images: dict[CanonicalKey, str]
    unprocessed: set[CanonicalKey]


_decode_scan = msgspec.json.Decoder(_ScanBody).decode
_decode_batch = msgspec.json.Decoder(_BatchBody).decode
_decode_keys = msgspec.json.Decoder(dict[str, dict[str, str]]).decode

_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)


class KeySlicer:
    """Slices the key attributes out of items of one table.

    Args:
        key_names: Names of the key attributes, the partition key first.
    """

    def __init__(self, key_names: Sequence[str]) -> None:
        self._raw_values = _raw_values(key_names)
        names = [msgspec.json.encode(name).decode() for name in key_names]
        self._openings = [f"{',' if index else '{'}{name}:" for index, name in enumerate(names)]

    def keys_of(self, item: msgspec.Raw) -> str:
        """Return the key attributes of an item as JSON.

        Raises:
            ValueError: The item is not an object, or lacks a key attribute.
        """
        values = self._raw_values(item)
        parts = [
            opening + bytes(value).decode()
            for opening, value in zip(self._openings, values, strict=True)
        ]
        return "".join(parts) + "}"


def _raw_values(key_names: Sequence[str]) -> Callable[[msgspec.Raw], tuple[msgspec.Raw, ...]]:
    """Return a function that slices the values of these attributes out of an item."""
    if any(char in '"\\' or char < " " for name in key_names for char in name):
        # msgspec takes no such name for a field: slice every attribute, which is slower.
        decode_all = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

        def of_all(item: msgspec.Raw) -> tuple[msgspec.Raw, ...]:
            attributes = decode_all(item)
            missing = [name for name in key_names if name not in attributes]
            if missing:
                raise ValueError(f"Object missing required field `{missing[0]}`")
            return tuple(attributes[name] for name in key_names)

        return of_all
    fields = [f"key_{index}" for index in range(len(key_names))]
    struct = msgspec.defstruct(
        "KeyAttributes",
        [(field, msgspec.Raw) for field in fields],
        rename=dict(zip(fields, key_names, strict=True)),
        gc=False,
    )
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(struct)
    return lambda item: msgspec.structs.astuple(decoder.decode(item))


def parse_scan(body: bytes, slicer: KeySlicer, call: str, *, consistent: bool) -> ParsedScan:
    """Return the page in a Scan body.

    Args:
        body: JSON body of a successful response.
        slicer: Slicer of the table's keys.
        call: Description of the call, for the error text.
        consistent: Whether the read was consistent, for the read units.

    Raises:
        ServiceUnavailableError: The body is not a response of Scan. One without `Items` would be
            read as the end of the segment.
    """
    try:
        body.decode()
        page = _decode_scan(body)
        if page.items is UNSET:
            _refuse(body, call, "has no list of Items")
        if page.count is not None and page.count != len(page.items):
            _refuse(body, call, f"has {len(page.items)} items and says {page.count}")
        items = [_scanned(raw, slicer) for raw in page.items]
        last_key = bytes(page.last_evaluated_key).decode()
        if last_key not in ("", "null"):
            _decode_keys(last_key)
    except _MALFORMED as error:
        _refuse(body, call, _fault(error))
    next_key = None if last_key in ("", "null") else last_key
    units = None if page.consumed_capacity is None else page.consumed_capacity.capacity_units
    if units is None:
        units = _derived_units(items, consistent=consistent)
    return ParsedScan(items, next_key, units)


def _scanned(raw: msgspec.Raw, slicer: KeySlicer) -> ScannedItem:
    return ScannedItem(slicer.keys_of(raw), bytes(raw).decode(), len(raw))


def _derived_units(items: Iterable[ScannedItem], *, consistent: bool) -> float:
    units = math.ceil(sum(item.size_bytes for item in items) / READ_UNIT_BYTES)
    return float(units) if consistent else units / 2


def parse_batch(body: bytes, slicer: KeySlicer, call: str) -> ParsedBatch:
    """Return the items in a BatchGetItem body that asks one table.

    Args:
        body: JSON body of a successful response.
        slicer: Slicer of the table's keys.
        call: Description of the call, for the error text.

    Raises:
        ServiceUnavailableError: The body is not a response of BatchGetItem. One without
            `Responses` would be read as the proof that no item exists.
    """
    try:
        body.decode()
        answer = _decode_batch(body)
        if answer.responses is UNSET:
            _refuse(body, call, "has no Responses")
        images = {
            canonical(slicer.keys_of(raw)): bytes(raw).decode()
            for raws in answer.responses.values()
            for raw in raws
        }
        unprocessed = {
            _canonical(keys)
            for request in (answer.unprocessed_keys or {}).values()
            for keys in request.keys
        }
    except _MALFORMED as error:
        _refuse(body, call, _fault(error))
    return ParsedBatch(images, unprocessed)


def canonical(keys_json: str) -> CanonicalKey:
    """Return the canonical key of DynamoDB JSON: 1, 1.0 and 1E0 are one key.

    Raises:
        ValueError: The text is not a map of values of type S, N or B.
    """
    return _canonical(_decode_keys(keys_json))


def _canonical(keys: Mapping[str, Mapping[str, str]]) -> CanonicalKey:
    return tuple(
        (name, descriptor, _canonical_value(descriptor, value))
        for name in sorted(keys)
        for descriptor, value in keys[name].items()
    )


def _canonical_value(descriptor: str, value: str) -> str:
    if descriptor == "N":
        return canonical_number(value)
    if descriptor == "B":
        return base64.b64encode(_bytes(value)).decode()
    if descriptor != "S":
        raise ValueError(f"a key attribute has type {descriptor[:20]!r}, not S, N or B")
    return value


def _bytes(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError("a binary key attribute is not base64") from error


def request_key(keys_json: str, call: str) -> dict[str, dict[str, str | bytes]]:
    """Return a key in the form that boto3 takes, where binary values are bytes.

    Raises:
        SourceError: The text is not a map of values of type S, N or B.
    """
    try:
        keys = _decode_keys(keys_json)
        canonical(keys_json)
        return {
            name: {kind: _bytes(value) if kind == "B" else value for kind, value in typed.items()}
            for name, typed in keys.items()
        }
    except (msgspec.DecodeError, ValueError) as error:
        raise SourceError(
            f"{call}: {keys_json[:200]} is not a key of the table: {error}.",
            safe="Nothing was read.",
            hint="A key is DynamoDB JSON of all key attributes, with values of type S, N or B.",
        ) from None


def wire_body(answer: Mapping[str, Any], *members: str) -> bytes:
    """Return the JSON body of a response that botocore has parsed, up to JSON formatting.

    For sessions whose HTTP is stubbed: there is no body to capture.
    """
    return msgspec.json.encode({name: answer[name] for name in members if name in answer})


def _fault(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "holds an item that is nested too deep to be read"
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8"
    return f"can't be read ({error})"


def _refuse(body: bytes, call: str, fault: str) -> NoReturn:
    raise ServiceUnavailableError(
        f"{call}: the response ({len(body)} bytes, starting with {body[:20]!r}) {fault}.",
        safe="Landed rows are safe: the scan goes on with the page that failed.",
        hint="If it persists, look for a proxy between this process and the service, "
        "and check the endpoint URL.",
    ) from None
