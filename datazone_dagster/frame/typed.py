"""Item types: how a DynamoDB value is read into one, exact or not at all.

SQL reads everything that is written the usual way. A text that it leaves is tried once more
here (`1E+2` as a decimal), and what has no exact value goes to a column of texts.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal, DecimalException

import pyarrow as pa

from datazone_dagster.errors import ExpressionError

TYPE_OF = {
    "S": "string",
    "N": "decimal(38,9)",
    "B": "binary",
    "BOOL": "boolean",
    "SS": "list<string>",
    "NS": "list<decimal(38,9)>",
    "BS": "list<binary>",
    "L": "json",
    "M": "json",
}
"""The type of a column whose type nobody declared, by the descriptor of its values."""

_TAKES = {
    "string": ("S", "N"),
    "boolean": ("BOOL",),
    "long": ("N", "S"),
    "double": ("N", "S"),
    "decimal": ("N", "S"),
    "binary": ("B",),
    "date": ("S",),
    "timestamp": ("S",),
    "timestamp_s": ("N",),
    "timestamp_ms": ("N",),
}
_DECIMAL = re.compile(r"decimal\((\d+),(\d+)\)")
_MAX_DIGITS = 38
_LONG = range(-(2**63), 2**63)
_CONTEXT = Context(prec=200)

_DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?)?"
_READINGS = {
    "long": ("-?[0-9]{1,18}", "{text}::BIGINT"),
    "double": (r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?", "TRY_CAST({text} AS DOUBLE)"),
    "date": (_DATE, "TRY_CAST({text} AS DATE)"),
    "timestamp": (_DATE + _TIME, "TRY_CAST({text} AS TIMESTAMPTZ)"),
    "timestamp_s": (
        r"-?[0-9]{1,11}(\.[0-9]{1,6})?",
        "make_timestamptz(({text}::DECIMAL(18, 6) * 1000000)::BIGINT)",
    ),
    "timestamp_ms": (
        r"-?[0-9]{1,14}(\.[0-9]{1,3})?",
        "make_timestamptz(({text}::DECIMAL(18, 3) * 1000)::BIGINT)",
    ),
}
_ARROW = {
    "string": pa.string(),
    "boolean": pa.bool_(),
    "long": pa.int64(),
    "double": pa.float64(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "timestamp_s": pa.timestamp("us", tz="UTC"),
    "timestamp_ms": pa.timestamp("us", tz="UTC"),
    "json": pa.string(),
}


def declared_type(attribute: str, declared: str) -> str:
    """A type as the user declares it, in the one way that it is stored.

    Raises:
        ExpressionError: There is no such type.
    """
    name = re.sub(r"\s+", "", str(declared)).lower()
    found = _DECIMAL.fullmatch(name)
    if found is not None:
        precision, scale = int(found[1]), int(found[2])
        if 1 <= precision <= _MAX_DIGITS and scale <= precision:
            return name
    if found is None and name in _TAKES and name != "decimal":
        return name
    raise ExpressionError(
        f"items(types={{{attribute!r}: {declared!r}}}): there is no such type.",
        hint="Declare string, boolean, long, double, decimal(p,s) up to 38 digits, binary, date, "
        "timestamp (ISO text), timestamp_s or timestamp_ms (numbers since 1970).",
    )


def descriptors_of(declared: str) -> tuple[str, ...]:
    """The DynamoDB types that a declared column takes values of, the usual one first."""
    return _TAKES[declared.partition("(")[0]]


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type of an item type."""
    if name.startswith("list<"):
        return pa.list_(arrow_type(name[5:-1]))
    found = _DECIMAL.fullmatch(name)
    if found is not None:
        return pa.decimal128(int(found[1]), int(found[2]))
    return _ARROW[name]


def reading(name: str, text: str) -> str | None:
    """The SQL that reads a text (or a set of texts) as a type, null where it can't.

    Args:
        name: The type.
        text: The SQL of the text.

    Returns:
        None for the types whose values need no reading.
    """
    if name in {"string", "boolean", "json"}:
        return None
    if name == "binary":
        return f"TRY(from_base64({text}))"
    if name == "list<string>":
        return f"list_sort({text})"
    if name == "list<binary>":
        return f"TRY(list_sort(list_transform({text}, lambda b: from_base64(b))))"
    if name.startswith("list<"):
        pattern, value = _pattern_and_value(name[5:-1])
        wrong = f"list_filter({text}, lambda n: NOT regexp_full_match(n, '{pattern}'))"
        read = f"list_transform({text}, lambda n: {value.format(text='n')})"
        return f"CASE WHEN len({wrong}) = 0 THEN list_sort({read}) END"
    pattern, value = _pattern_and_value(name)
    matches = f"regexp_full_match({text}, '{pattern}')"
    return f"CASE WHEN {matches} THEN {value.format(text=text)} END"


def _pattern_and_value(name: str) -> tuple[str, str]:
    found = _DECIMAL.fullmatch(name)
    if found is None:
        return _READINGS[name]
    precision, scale = int(found[1]), int(found[2])
    whole = f"[0-9]{{1,{precision - scale}}}" if precision > scale else "0"
    fraction = rf"(\.[0-9]{{1,{scale}}})?" if scale else ""
    return f"-?{whole}{fraction}", f"{{text}}::DECIMAL({precision}, {scale})"


def exact_value(name: str, text: str) -> Decimal | int | None:
    """A number in an unusual notation, if the type holds it exactly."""
    found = _DECIMAL.fullmatch(name)
    if found is None and name != "long":
        return None
    try:
        number = _CONTEXT.create_decimal(text)
        precision, scale = (int(found[1]), int(found[2])) if found else (19, 0)
        if not number.is_finite() or number.adjusted() >= precision:
            return None
        value = number.quantize(Decimal(1).scaleb(-scale), context=_CONTEXT)
    except DecimalException:
        return None
    if value != number or value.adjusted() >= precision - scale:
        return None
    if found is None:
        return int(value) if int(value) in _LONG else None
    return value
