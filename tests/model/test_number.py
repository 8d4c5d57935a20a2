"""Canonical numbers: one text for every spelling, exact to 38 digits."""

from __future__ import annotations

from decimal import Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.model.number import canonical_number, split_number

EXACT = Context(prec=400, Emax=999999, Emin=-999999)


def dynamodb_numbers() -> st.SearchStrategy[Decimal]:
    """Draw from all numbers that DynamoDB stores."""
    return st.builds(
        lambda sign, digits, magnitude: Decimal((sign, tuple(map(int, digits)), magnitude)).scaleb(
            1 - len(digits), EXACT
        ),
        st.integers(0, 1),
        st.integers(1, 10**38 - 1).map(str),
        st.integers(-130, 125),
    )


def spellings(value: Decimal) -> list[str]:
    plain = format(value, "f")
    return [
        plain,
        f"{value:E}",
        str(value),
        f"{plain}.000" if "." not in plain else f"{plain}000",
        f"-000{plain[1:]}" if plain.startswith("-") else f"+000{plain}",
        f"{value:e}",
    ]


@given(dynamodb_numbers())
def test_every_spelling_gives_one_text_of_the_same_value(value: Decimal) -> None:
    texts = {canonical_number(spelling) for spelling in spellings(value)}
    assert len(texts) == 1
    assert EXACT.create_decimal(texts.pop()) == value


@given(dynamodb_numbers(), dynamodb_numbers())
def test_different_numbers_have_different_texts(one: Decimal, other: Decimal) -> None:
    assert (canonical_number(str(one)) == canonical_number(str(other))) == (one == other)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0", "0"), ("-0.00", "0"), ("0E+5", "0"), ("1", "1"), ("1.0", "1"), ("1E0", "1"),
        ("100", "100"), ("1e2", "100"), ("-1.50", "-1.5"), ("0.001", "0.001"), (".5", None),
        ("1E-130", "1E-130"), ("9.9E+125", "99E124"), ("1E125", "1E125"),
        ("12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
        ("0.12345678901234567890123456789012345678", "0.12345678901234567890123456789012345678"),
        ("123456789012345678901234567890123456789", None), ("1E126", None), ("1E-131", None),
        ("", None), ("abc", None), ("1 ", None), ("NaN", None), ("Infinity", None), ("1_0", None),
        ("٣", None), ("--1", None), ("1E99999999999", None), ("0x10", None),
    ],
)  # fmt: skip
def test_examples(text: str, canonical: str | None) -> None:
    if canonical is None:
        with pytest.raises(ValueError, match="number"):
            canonical_number(text)
    else:
        assert canonical_number(text) == canonical
        assert canonical_number(canonical) == canonical


def test_parts() -> None:
    assert split_number("-120.50") == (True, "1205", -1)
    assert split_number("0.0") == (False, "0", 0)
