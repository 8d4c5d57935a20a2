"""Texts of errors about data: short, in one line, and never confused by the values they quote."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest

from datazone_dagster.errors import ExpressionError, ResultError
from datazone_dagster.frame import Frame
from datazone_dagster.frame.arrow_types import as_delta
from datazone_dagster.frame.query_session import Coming, MalformedImageError
from datazone_dagster.frame.sql_errors import MAX_REASON_CHARS
from tests.frame.chunks import chunk

MAX_TEXT_CHARS = 700
LARGEST_VALUE = 390_000
CAST = "cast(dynamodb.NewImage.n.S as int) as n"


def failure_of_cast(value: str, expression: str = CAST) -> str:
    changes = chunk(({"id": {"S": "1"}, "n": {"S": value}}, None))
    with pytest.raises(ExpressionError) as caught:
        Frame.of_changes(changes).select(expression).arrow()
    return str(caught.value)


@pytest.mark.parametrize("character", ["a", "_", '"', ".", " ", "\n", 'a"."', "é"])
def test_a_long_value_is_cut_in_an_error(character: str) -> None:
    texts = []
    for size in (MAX_REASON_CHARS, 20_000, LARGEST_VALUE):
        text = failure_of_cast((character * size)[:size])
        assert "Could not convert string" in text
        assert re.search(r"\d+,?\d* characters \.\.\. .*to INT32\. Use try_cast", text)
        texts.append(text)
    assert len(texts[-1]) < MAX_TEXT_CHARS
    assert abs(len(texts[-1]) - len(texts[0])) <= len("390,000") - len("2,000")
    assert "\n" not in texts[-1]


@pytest.mark.parametrize(
    "value",
    [
        "GROUP BY",
        "Malformed JSON",
        'Table with name "x" does not exist',
        'Referenced column "x" not found in FROM clause',
    ],
)
def test_a_value_that_reads_like_another_error_is_quoted(value: str) -> None:
    text = failure_of_cast(value)
    assert f"Could not convert string '{value}' to INT32" in text
    assert "Use try_cast" in text


def test_a_text_that_the_sql_raises_is_cut() -> None:
    text = failure_of_cast("x" * LARGEST_VALUE, "error(dynamodb.NewImage.n.S) as n")
    assert len(text) < MAX_TEXT_CHARS


def test_an_error_of_rows_that_arrive_during_the_query_has_the_same_hint() -> None:
    frame = Frame.of_changes(chunk(({"id": {"S": "1"}, "n": {"S": "x"}}, None))).select(CAST)
    value = "y" * LARGEST_VALUE
    changes = chunk(({"id": {"S": "1"}, "n": {"S": value}}, None))
    coming = Coming(changes.schema, changes.to_batches(), lambda _: True)
    with pytest.raises(ExpressionError, match="to INT32") as caught:
        frame.rows_of(coming)
    assert len(str(caught.value)) < MAX_TEXT_CHARS


def test_images_that_are_not_json_are_still_recognised() -> None:
    changes = chunk(('{"n": {"S": "' + "x" * LARGEST_VALUE, None))
    with pytest.raises(MalformedImageError):
        Frame.of_changes(changes).select("dynamodb.NewImage.n.S as n").arrow()


def test_a_result_that_can_not_be_cast_says_so_in_one_line() -> None:
    nanoseconds = pa.table({"t": pa.array([1], pa.timestamp("ns"))})
    with pytest.raises(ResultError) as caught:
        as_delta(nanoseconds, where="Dataset 'x'")
    assert "\n" not in str(caught.value)
