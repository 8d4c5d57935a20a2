"""Hostile text in all that a person reads: escaped and shortened by one pair of functions."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.errors import DatazoneError
from datazone_dagster.text import VALUE_CHARS, escaped, shortened, shown, without_secrets

CLEAR_SCREEN = "\x1b[2J"
CLIPBOARD = "\x1b]52;c;cm0gLXJmIC8=\x07"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, with 'quotes' and \\n", "plain, with 'quotes' and \\n"),
        (CLEAR_SCREEN, r"\x1b[2J"),
        (CLIPBOARD, r"\x1b]52;c;cm0gLXJmIC8=\x07"),
        ("key\nERROR forged", r"key\nERROR forged"),
        ("a\r\tb\x00\x7f\x9b", r"a\r\tb\x00\x7f\x9b"),
        ("line\u2028sep", r"line\u2028sep"),
        ("abc\u202etxt.exe", r"abc\u202etxt.exe"),
        ("\ud800", r"\ud800"),
        ("Grüße 東京\u3000😀", "Grüße 東京\u3000😀"),
    ],
)
def test_escapes(text: str, expected: str) -> None:
    assert escaped(text) == expected


@given(st.text(alphabet=st.characters(), max_size=300))
def test_escaped_text_is_one_harmless_line(text: str) -> None:
    safe = escaped(text)
    assert len(safe.splitlines()) <= 1
    assert not {unicodedata.category(char) for char in safe} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert escaped(safe) == safe


@given(st.text(max_size=3_000), st.integers(10, 2_500))
def test_shortened_text_keeps_its_ends(text: str, limit: int) -> None:
    short = shortened(text, limit)
    assert len(short) <= limit
    assert max(map(len, short.split()), default=0) <= VALUE_CHARS
    if len(text) <= min(limit, VALUE_CHARS):
        assert short == text
    else:
        assert short[:1] == text[:1]


def test_a_long_value_does_not_push_out_the_cause() -> None:
    text = f"Could not convert string '{'x' * 390_000}' to INT64 in row 7"
    short = shortened(text, 500)
    assert short.startswith("Could not convert string 'xxx")
    assert short.endswith("to INT64 in row 7")
    assert "390,0" in short
    assert len(shown(text)) <= VALUE_CHARS


def test_every_error_is_one_harmless_line() -> None:
    hostile = f"key {CLEAR_SCREEN}\nERROR forged {'x ' * 200_000}"
    error = DatazoneError(hostile, safe=hostile, hint=hostile)
    assert "\n" not in str(error)
    assert "\x1b" not in str(error)
    assert len(str(error)) < 7_000
    assert r"\x1b[2J\nERROR forged" in error.what
    assert "\x1b" not in error.safe + error.hint


def test_urls_lose_user_and_query() -> None:
    text = "GET http://key:s3cr3t@store:9000/lake/a?X-Signature=abc failed, see s3://k@lake/b"
    assert without_secrets(text) == "GET http://store:9000/lake/a failed, see s3://lake/b"
    assert without_secrets("at abfss://lake@acme/a?sig=b") == "at abfss://lake@acme/a"
    assert without_secrets("abfss://user:pass@acme/a") == "abfss://acme/a"
