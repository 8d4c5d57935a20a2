"""Texts of a column converted by Arrow, where all of them are in a usual notation.

SQL decides text by text, by a regular expression, on a way into DuckDB and back. Arrow converts the
whole column or none of it. What it accepts beyond SQL's notations has the same value in
`typed.exact_value`, or is found here and left to SQL.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.frame.item_types import MAX_DIGITS, Scalar
from datazone_dagster.frame.text_bytes import are_within, bytes_of, offsets_of

_INSTANT = pa.timestamp("us", tz="UTC")
_EPOCH = datetime(1970, 1, 1)
_FIRST, _LAST = (
    (one - _EPOCH) // timedelta(microseconds=1) for one in (datetime.min, datetime.max)
)
_AFTER_HOURS = len("2024-05-06T07")
_FEWEST_CHARS = len("2024-05-06T07:08Z")


def usual_values(scalar: Scalar, texts: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Return texts as values of a type, null where they are null.

    Args:
        scalar: Type to convert to.
        texts: Texts of the attribute.

    Returns:
        None if a text is not in the usual notation or has no such value, or for types that only
        SQL converts.
    """
    if scalar.name == "timestamp":
        kind, are_usual = _INSTANT, _have_minutes
    elif scalar.name in _NUMBERS:
        kind, are_usual = _NUMBERS[scalar.name], _are_plain_numbers
    elif scalar.name == "decimal":
        kind, are_usual = pa.decimal128(scalar.precision, scalar.scale), _are_plain_numbers
    else:
        return None
    if not all(map(are_usual, texts.chunks)):
        return None
    try:
        if scalar.name == "decimal" and not _have_known_powers(texts, scalar):
            return None
        values = texts.cast(kind)
    except pa.ArrowInvalid:
        return None
    return None if kind == _INSTANT and not _are_of_python(values) else values


_NUMBERS = {"int": pa.int32(), "long": pa.int64()}


def _are_plain_numbers(texts: pa.StringArray) -> bool:
    """Return whether there are only digits, points and minus signs, so no `0x`, `1E2` or `nan`."""
    return are_within(bytes_of(texts), "-", "9")


def _have_known_powers(texts: pa.ChunkedArray, scalar: Scalar) -> bool:
    """Return whether Arrow gets all texts to the scale of a decimal by powers of ten that fit.

    Arrow 26 multiplies modulo 2^128, so that a number with too many digits becomes another one that
    fits, and makes 0 of one whose fraction is longer than the scale by more than 38 digits.
    """
    longest = max((int(np.diff(offsets_of(one)).max(initial=0)) for one in texts.chunks), default=0)
    if longest <= MAX_DIGITS - scalar.scale or longest > MAX_DIGITS:
        return longest <= MAX_DIGITS
    span = pc.min_max(texts.cast(pa.float64())).as_py()
    most = 10.0 ** (MAX_DIGITS - scalar.scale)
    return span["min"] is None or bool(-most < span["min"] and span["max"] < most)


def _have_minutes(texts: pa.StringArray) -> bool:
    """Return whether each text has minutes after the hours: Arrow does not ask for them."""
    present = texts.drop_null()
    offsets, found = offsets_of(present), bytes_of(present)
    if len(present) and np.diff(offsets).min() < _FEWEST_CHARS:
        return False
    return bool(np.all(found[offsets[:-1] - offsets[0] + _AFTER_HOURS] == ord(":")))


def _are_of_python(values: pa.ChunkedArray) -> bool:
    """Return whether the times are in the years 1 to 9999."""
    span = pc.min_max(values.cast(pa.int64())).as_py()
    return span["min"] is None or bool(span["min"] >= _FIRST and span["max"] <= _LAST)
