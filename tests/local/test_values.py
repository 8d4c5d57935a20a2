from __future__ import annotations

from decimal import Decimal

import pytest
from boto3.dynamodb.types import TypeDeserializer
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.local.service_errors import ServiceError
from datazone_dagster.local.values import (
    checked_value,
    item_bytes,
    normalised_number,
    sort_bytes,
)

_digits = st.integers(-(10**38) + 1, 10**38 - 1)


@st.composite
def numbers(draw: st.DrawFn) -> Decimal:
    """Generate the numbers that the service can store."""
    digits = draw(_digits)
    width = len(str(abs(digits)))
    exponent = draw(st.integers(-130 - width + 1, 125 - width + 1))
    return Decimal((int(digits < 0), tuple(map(int, str(abs(digits)))), exponent))


@given(numbers())
def test_a_number_keeps_its_value_and_has_one_form(number: Decimal) -> None:
    plain = normalised_number(str(number))
    assert Decimal(plain) == number
    assert normalised_number(plain) == plain
    assert ("E" in plain) == (number.adjusted() >= 38)
    if number.adjusted() >= -128:  # boto3's own context refuses long numbers below
        assert TypeDeserializer().deserialize({"N": plain}) == number
    assert not plain.startswith("+")
    assert plain == "0" or "." not in plain or "E" in plain or plain[-1] != "0"


@given(numbers(), numbers())
def test_key_bytes_sort_as_numbers_do(one: Decimal, other: Decimal) -> None:
    first, second = (sort_bytes({"N": str(number)}) for number in (one, other))
    assert (first < second) == (one < other)
    assert (first == second) == (one == other)


@given(st.text(), st.text())
def test_key_bytes_of_strings_sort_by_utf8(one: str, other: str) -> None:
    first, second = sort_bytes({"S": one}), sort_bytes({"S": other})
    assert (first < second) == (one.encode() < other.encode())


@pytest.mark.parametrize(
    ("given_text", "normalised"),
    [
        ("1.0", "1"),
        ("+007", "7"),
        ("-0", "0"),
        ("0e500", "0"),
        (".5", "0.5"),
        ("1e3", "1000"),
        ("1E-130", "0." + "0" * 129 + "1"),
        ("999" + "0" * 123, "9.99E+125"),
        ("1E+37", "1" + "0" * 37),
        ("1E+38", "1E+38"),
        ("9" * 38 + "000", "9." + "9" * 37 + "E+40"),
    ],
)
def test_numbers_are_normalised(given_text: str, normalised: str) -> None:
    assert normalised_number(given_text) == normalised


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("9" * 39, "38 significant digits"),
        ("1" + "0" * 37 + "1", "38 significant digits"),
        ("1E+126", "overflow"),
        ("1E-131", "underflow"),
        ("1e99999999999999999999", "overflow"),
        ("1e-99999999999999999999", "underflow"),
        ("NaN", "numeric value"),
        ("Infinity", "numeric value"),
        ("1_000", "numeric value"),
        (" 1", "numeric value"),
        ("\u0661", "numeric value"),
        ("", "numeric value"),
    ],
)
def test_numbers_out_of_range_are_refused(text: str, reason: str) -> None:
    with pytest.raises(ServiceError, match=reason) as refused:
        normalised_number(text)
    assert refused.value.code == "ValidationException"


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"S": "a", "N": "1"},
        {"X": "a"},
        {"S": 1},
        {"N": 1},
        {"B": "not base64!"},
        {"BOOL": "true"},
        {"NULL": False},
        {"SS": []},
        {"SS": ["a", "a"]},
        {"NS": ["1", "1.0"]},
        {"L": {}},
        {"M": []},
        "plain",
    ],
)
def test_malformed_values_are_refused(value: object) -> None:
    with pytest.raises(ServiceError):
        checked_value(value)


def test_nesting_ends_at_32_levels() -> None:
    value: dict[str, object] = {"S": "x"}
    for _ in range(32):
        value = {"L": [value]}
    checked_value(value)
    with pytest.raises(ServiceError, match="Nesting"):
        checked_value({"L": [value]})


def test_sets_are_stored_in_one_order() -> None:
    assert checked_value({"NS": ["10", "9", "1.50"]}) == {"NS": ["1.5", "9", "10"]}
    assert checked_value({"SS": ["b", "a"]}) == checked_value({"SS": ["a", "b"]})


def test_sizes_are_counted_as_the_service_counts() -> None:
    assert item_bytes({"id": {"S": "é"}}) == 2 + 2
    assert item_bytes({"n": {"N": "-12.5"}}) == 1 + (2 + 1 + 1)
    assert item_bytes({"b": {"B": "AAAA"}}) == 1 + 3
    assert item_bytes({"l": {"L": [{"BOOL": True}]}}) == 1 + 3 + 1 + 1
    assert item_bytes({"m": {"M": {"k": {"NULL": True}}}}) == 1 + 3 + 1 + 1 + 1
    assert item_bytes({"s": {"SS": ["ab", "c"]}}) == 1 + 3
