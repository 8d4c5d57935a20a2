"""Conversion of the text of a value to a scalar type: exactly, or not at all.

SQL converts every text in the usual notation. Python tries the other texts again (`1E+2` as a
decimal). A text without an exact value goes to another column, as text.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation

from datazone_dagster.frame.item_types import Scalar

_RANGES = {"int": range(-(2**31), 2**31), "long": range(-(2**63), 2**63)}
_CONTEXT = Context(prec=200, traps=[InvalidOperation, Inexact])
"""Calculation that raises a `DecimalException` in place of rounding."""

_MICROSECONDS = {"timestamp_s": 10**6, "timestamp_ms": 10**3}
_MOST_DIGITS_SINCE_1970 = 15  # milliseconds of the year 9999

_DATE = "([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-[0-9]{2}-[0-9]{2}"
_TIME = r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?)?"


def _instant(sql: str) -> str:
    """Restrict to years 1 to 9999, the range of a Python datetime and so of every table preview."""
    first, last = "0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00"
    within = f"{sql} BETWEEN TIMESTAMPTZ '{first}' AND TIMESTAMPTZ '{last}'"
    return f"CASE WHEN {within} THEN {sql} END"


_READINGS = {
    "int": ("-?[0-9]{1,10}", "TRY_CAST({text} AS INTEGER)"),
    "long": ("-?[0-9]{1,19}", "TRY_CAST({text} AS BIGINT)"),
    "double": (r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?", "TRY_CAST({text} AS DOUBLE)"),
    "date": (_DATE, "TRY_CAST({text} AS DATE)"),
    "timestamp": (_DATE + _TIME, _instant("TRY_CAST({text} AS TIMESTAMPTZ)")),
    "timestamp_s": (
        r"-?[0-9]{1,11}(\.[0-9]{1,6})?",
        _instant("make_timestamptz(({text}::DECIMAL(38, 6) * 1000000)::BIGINT)"),
    ),
    "timestamp_ms": (
        r"-?[0-9]{1,14}(\.[0-9]{1,3})?",
        _instant("make_timestamptz(({text}::DECIMAL(38, 3) * 1000)::BIGINT)"),
    ),
}


def reading(scalar: Scalar, text: str) -> str | None:
    """Return the SQL that converts a text to a type, null where the text does not fit.

    Args:
        scalar: Type to convert to.
        text: SQL of the text.

    Returns:
        None for the types whose values need no conversion.
    """
    if scalar.name in {"string", "boolean", "json"}:
        return None
    if scalar.name == "binary":
        return f"TRY(from_base64({text}))"
    pattern, value = _pattern_and_value(scalar)
    return f"CASE WHEN regexp_full_match({text}, '{pattern}') THEN {value.format(text=text)} END"


def canonical_integer(text: str) -> str:
    """Return the SQL of a text that is the canonical text of an integer, else null."""
    return f"CASE WHEN regexp_full_match({text}, '0|-?[1-9][0-9]{{0,37}}') THEN {text} END"


def _pattern_and_value(scalar: Scalar) -> tuple[str, str]:
    if scalar.name != "decimal":
        return _READINGS[scalar.name]
    precision, scale = scalar.precision, scalar.scale
    integer = f"[0-9]{{1,{precision - scale}}}" if precision > scale else "0"
    fraction = rf"(\.[0-9]{{1,{scale}}})?" if scale else ""
    return f"-?{integer}{fraction}", f"{{text}}::DECIMAL({precision}, {scale})"


def exact_value(scalar: Scalar, text: str) -> object | None:
    """Return the value of a text in any notation, None unless the type represents it exactly."""
    if scalar.name in {"decimal", "int", "long"}:
        return _number(scalar, text)
    if scalar.name in _MICROSECONDS:
        return _since_1970(text, _MICROSECONDS[scalar.name])
    if scalar.name != "binary" and not re.fullmatch(_READINGS[scalar.name][0], text):
        return None
    try:
        return _PYTHON[scalar.name](text)
    except (ValueError, OverflowError):  # an error of base64 is a ValueError
        return None


def _number(scalar: Scalar, text: str) -> Decimal | int | None:
    if not text.isascii():
        return None  # digits of other scripts are numbers to Python only
    precision, scale = (scalar.precision, scalar.scale) if scalar.precision else (19, 0)
    try:
        number = _CONTEXT.create_decimal(text)
        if not number.is_finite() or number.adjusted() >= precision:
            return None
        value = number.quantize(Decimal(1).scaleb(-scale), context=_CONTEXT)
    except DecimalException:
        return None
    if value != number or value.adjusted() >= precision - scale:
        return None
    if scalar.name == "decimal":
        return value
    return int(value) if int(value) in _RANGES[scalar.name] else None


def _double(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise OverflowError
    return value


def _timestamp(text: str) -> datetime:
    day, clock, zone = _TIMESTAMP.fullmatch(text).groups()  # type: ignore[union-attr]  # it matched
    hours, _, fraction = (clock or "00:00").partition(".")
    wall = datetime.fromisoformat(f"{day}T{hours}").replace(
        microsecond=int(fraction.ljust(6, "0") or 0), tzinfo=timezone.utc
    )
    if zone in {None, "Z"}:
        return wall
    digits = zone[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return wall + offset if zone[0] == "-" else wall - offset


def _since_1970(text: str, unit_microseconds: int) -> datetime | None:
    if not text.isascii():
        return None
    try:
        number = _CONTEXT.create_decimal(text)
        if not number.is_finite() or number.adjusted() >= _MOST_DIGITS_SINCE_1970:
            return None
        microseconds = _CONTEXT.multiply(number, Decimal(unit_microseconds))
        whole = int(microseconds.quantize(Decimal(1), context=_CONTEXT))
        return _EPOCH + timedelta(microseconds=whole)
    except (DecimalException, OverflowError):
        return None


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_TIMESTAMP = re.compile(r"(.{10})(?:[T ]([0-9:.]+)(.+)?)?")
_PYTHON: dict[str, Callable[[str], object]] = {
    "binary": lambda text: base64.b64decode(text, validate=True),
    "double": _double,
    "date": date.fromisoformat,
    "timestamp": _timestamp,
}
