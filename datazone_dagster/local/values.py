"""Attribute values: validated, and normalised as the service stores them.

Normalised values compare with `==`: numbers are plain decimals without needless zeros, sets
are sorted, binaries are canonical base64. So one comparison detects an unchanged item.

Limits (DynamoDB developer guide, "Service quotas" and "Data types"): numbers have 38
significant digits and a magnitude from 1E-130 to 9.99E+125, items 400 KB, nesting 32 levels.
"""

from __future__ import annotations

import base64
import binascii
import re
from decimal import Decimal, InvalidOperation
from typing import Any

from datazone_dagster.local.service_errors import ServiceError, invalid_parameter, validation

Attribute = dict[str, Any]
"""One attribute value with its descriptor: `{"S": "x"}`."""
Item = dict[str, Attribute]

ITEM_BYTES_MAX = 400 * 1024
NESTING_MAX = 32
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SET_ELEMENT = {"SS": "S", "NS": "N", "BS": "B"}
_SET_NAME = {"SS": "string", "NS": "number", "BS": "binary"}


def decimal_of(text: str) -> Decimal:
    """Return the exact number of an N value, without trailing zeros.

    Raises:
        ServiceError: The text is not a number, or exceeds the range or precision of the service.
    """
    if not _NUMBER.fullmatch(text):
        raise validation(
            f"The parameter cannot be converted to a numeric value: {text}"
            if text
            else "The parameter cannot be converted to a numeric value"
        )
    try:
        number = Decimal(text)
    except InvalidOperation:  # the exponent exceeds the range of Decimal
        raise _out_of_range(overflow="e-" not in text.lower()) from None
    sign, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int) or not any(digits):
        return Decimal(0)
    last = len(digits)
    while digits[last - 1] == 0:
        last -= 1
    number = Decimal((sign, digits[:last], exponent + len(digits) - last))
    if number.adjusted() > 125:
        raise _out_of_range(overflow=True)
    if number.adjusted() < -130:
        raise _out_of_range(overflow=False)
    if last > 38:
        raise validation("Attempting to store more than 38 significant digits in a Number")
    return number


def _out_of_range(*, overflow: bool) -> ServiceError:
    word, size = ("overflow", "larger") if overflow else ("underflow", "smaller")
    return validation(
        f"Number {word}. Attempting to store a number with magnitude {size} than supported range"
    )


def normalised_number(text: str) -> str:
    """Return the number as the service does: plain decimal notation, no needless zeros.

    With more than 38 digits before the point the notation is scientific: boto3's
    TypeDeserializer refuses to read more digits, even zeros.
    """
    number = decimal_of(text)
    return format(number, "f") if number.adjusted() < 38 else str(number)


def checked_item(raw: object) -> Item:
    """Return a validated, normalised copy of an item or a key."""
    if not isinstance(raw, dict):
        raise ServiceError("SerializationException", "Expected a map of attribute values")
    return {_checked_name(name): checked_value(value) for name, value in raw.items()}


def _checked_name(name: str) -> str:
    if not name or len(name.encode()) > 65535:
        raise invalid_parameter("An attribute name must have 1 to 65535 bytes")
    return name


def checked_value(raw: object, depth: int = 0) -> Attribute:
    """Return a validated, normalised copy of one attribute value.

    Raises:
        ServiceError: `ValidationException` or `SerializationException`, as the service does.
    """
    if not isinstance(raw, dict):
        raise ServiceError("SerializationException", "Expected an attribute value")
    if len(raw) != 1:
        fault = "is empty," if not raw else "has more than one datatypes set,"
        raise validation(
            f"Supplied AttributeValue {fault} must contain exactly one of the supported datatypes"
        )
    if depth > NESTING_MAX:
        raise validation("Nesting Levels have exceeded supported limits")
    ((descriptor, value),) = raw.items()
    check = _CHECKS.get(descriptor)
    if check is not None:
        return {descriptor: check(value)}
    if descriptor in _SET_ELEMENT and isinstance(value, list):
        return {descriptor: _checked_set(descriptor, value)}
    if descriptor == "L" and isinstance(value, list):
        return {"L": [checked_value(element, depth + 1) for element in value]}
    if descriptor == "M" and isinstance(value, dict):
        return {"M": {name: checked_value(inner, depth + 1) for name, inner in value.items()}}
    if descriptor in {*_SET_ELEMENT, "L", "M"}:
        raise ServiceError("SerializationException", f"Unexpected value for type {descriptor}")
    raise validation(
        "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
    )


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ServiceError("SerializationException", "Expected a string")
    return value


def _number(value: object) -> str:
    return normalised_number(_string(value))


def _binary(value: object) -> str:
    try:
        raw = base64.b64decode(_string(value), validate=True)
    except (binascii.Error, ValueError):
        raise ServiceError("SerializationException", "Invalid base64 in a Binary value") from None
    return base64.b64encode(raw).decode()


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise ServiceError("SerializationException", "Expected a boolean")
    return value


def _null(value: object) -> bool:
    if value is not True:
        raise invalid_parameter("Null attribute value types must have the value of true")
    return True


_CHECKS = {"S": _string, "N": _number, "B": _binary, "BOOL": _bool, "NULL": _null}


def _checked_set(descriptor: str, values: list[object]) -> list[str]:
    if not values:
        raise invalid_parameter(f"An {_SET_NAME[descriptor]} set  may not be empty")
    element = _SET_ELEMENT[descriptor]
    check = {"S": _string, "N": _number, "B": _binary}[element]
    checked = [check(value) for value in values]
    if len(set(checked)) != len(checked):
        raise invalid_parameter(f"Input collection [{', '.join(checked)}] contains duplicates.")
    return sorted_set(descriptor, checked)


def sorted_set(descriptor: str, values: list[str]) -> list[str]:
    """Return the elements in canonical order."""
    element = _SET_ELEMENT[descriptor]
    return sorted(values, key=lambda value: sort_bytes({element: value}))


def item_bytes(item: Item) -> int:
    """Return an item's size in bytes as the service counts it (developer guide)."""
    return sum(len(name.encode()) + value_bytes(value) for name, value in item.items())


def value_bytes(attribute: Attribute) -> int:
    """Return the size of one value in bytes as the service counts it."""
    ((descriptor, value),) = attribute.items()
    if descriptor in ("S", "B"):
        return len(sort_bytes(attribute))
    if descriptor == "N":
        sign, digits, _ = decimal_of(value).as_tuple()
        return (len(digits) + 1) // 2 + 1 + sign
    if descriptor in ("BOOL", "NULL"):
        return 1
    if descriptor == "L":
        return 3 + sum(1 + value_bytes(element) for element in value)
    if descriptor == "M":
        return 3 + sum(1 + len(name.encode()) + value_bytes(inner) for name, inner in value.items())
    element = _SET_ELEMENT[descriptor]
    return sum(value_bytes({element: inner}) for inner in value)


def sort_bytes(attribute: Attribute) -> bytes:
    """Return bytes that sort as the service sorts S, N and B values, and are equal as they are."""
    ((descriptor, value),) = attribute.items()
    if descriptor == "S":
        return bytes(value.encode())
    if descriptor == "B":
        return base64.b64decode(value)
    number = decimal_of(value)
    if not number:
        return b"\x80"
    digits = "".join(map(str, number.as_tuple().digits)).encode()
    magnitude = (number.adjusted() + 1000).to_bytes(2, "big") + digits
    if number > 0:
        return b"\x81" + magnitude
    # Complemented, with the highest byte as terminator: more digits then sort lower.
    return b"\x7f" + bytes(255 - byte for byte in magnitude) + b"\xff"
