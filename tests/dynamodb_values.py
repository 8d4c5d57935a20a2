"""Values of DynamoDB for Hypothesis, and what they are as plain values."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

from boto3.dynamodb.types import Binary
from hypothesis import strategies as st

from datazone_dagster.model.number import canonical_number

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
ATTRIBUTE_NAMES = st.one_of(
    st.sampled_from(["a", "A", "S", "N", "M", "L", "NULL", "select", "x.y", 'q"q', "é", "😀", " "]),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
)
NUMBERS = st.one_of(
    st.integers(-(10**38) + 1, 10**38 - 1).map(str),
    st.decimals(-(10**20), 10**20, places=9).map(lambda d: format(d, "f")),
    st.tuples(st.integers(1, 10**38 - 1), st.integers(-130, 125), st.sampled_from(["", "-"])).map(
        lambda parts: _scientific(*parts)
    ),
    st.sampled_from(["0", "1E-130", "9.99E+125", "-9.99E+125", "1E+2", "-0.000000001"]),
)
"""Up to 38 digits, magnitudes from 1E-130 to 9.99E+125, in the notations of the service."""


_SMALLEST_DIGIT = -165
"""Exponent of the last digit that boto3's decimal context still takes."""


def _scientific(digits: int, magnitude: int, sign: str) -> str:
    text = str(digits)[: magnitude - _SMALLEST_DIGIT + 1]
    fraction = f".{text[1:]}" if text[1:] else ""
    return f"{sign}{text[0]}{fraction}E{magnitude:+d}"


def _set_of(values: st.SearchStrategy[str], key: Any = str) -> st.SearchStrategy[list[str]]:
    return st.lists(values, min_size=1, max_size=4, unique_by=key)


_BYTES = st.binary(max_size=9).map(lambda value: base64.b64encode(value).decode())
_SCALARS = {
    "S": TEXTS,
    "N": NUMBERS,
    "B": _BYTES,
    "BOOL": st.booleans(),
    "NULL": st.just(True),
    "SS": _set_of(TEXTS),
    "NS": _set_of(NUMBERS, canonical_number),
    "BS": _set_of(_BYTES),
}


def _of(descriptor: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return values.map(lambda value: {descriptor: value})


_LEAVES = st.one_of(*(_of(descriptor, values) for descriptor, values in _SCALARS.items()))
VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        _of("L", st.lists(inner, max_size=4)),
        _of("M", st.dictionaries(ATTRIBUTE_NAMES, inner, max_size=4)),
    ),
    max_leaves=10,
)
"""Typed values, as `{"S": "x"}`, of every type and nesting."""

TYPED: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    **{descriptor: _of(descriptor, values) for descriptor, values in _SCALARS.items()},
    "L": _of("L", st.lists(VALUES, max_size=4)),
    "M": _of("M", st.dictionaries(ATTRIBUTE_NAMES, VALUES, max_size=4)),
}


def as_boto(value: Any) -> Any:
    """A typed value as boto3's client gives and takes it: binary is bytes, not base64."""
    ((descriptor, inner),) = value.items()
    if descriptor == "B":
        inner = base64.b64decode(inner)
    elif descriptor == "BS":
        inner = [base64.b64decode(member) for member in inner]
    elif descriptor == "L":
        inner = [as_boto(member) for member in inner]
    elif descriptor == "M":
        inner = {name: as_boto(member) for name, member in inner.items()}
    return {descriptor: inner}


def plain(value: Any) -> Any:
    """What boto3's TypeDeserializer gives, as plain JSON has it: sorted lists, base64 texts."""
    if isinstance(value, Binary):
        return base64.b64encode(value.value).decode()  # type: ignore[attr-defined]  # not in the stubs
    if isinstance(value, set):
        members = [plain(member) for member in value]
        return sorted(members)
    if isinstance(value, list):
        return [plain(member) for member in value]
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    assert value is None or isinstance(value, (str, bool, Decimal))
    return value
