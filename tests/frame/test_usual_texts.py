"""Texts that Arrow converts have the values that SQL and Python read, or are left to SQL."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.frame.item_types import Scalar, arrow_type, parse_type
from datazone_dagster.frame.query_session import Session
from datazone_dagster.frame.typed import exact_value, reading
from datazone_dagster.frame.usual_texts import usual_values
from tests.dynamodb_values import NUMBERS
from tests.examples import examples

CONVERTED = [
    *("int", "long", "timestamp"),
    *("decimal(5,2)", "decimal(18,2)", "decimal(38,18)", "decimal(38,9)", "decimal(38,0)"),
]
LONG_NUMBERS = st.from_regex(r"-?(0|[1-9])[0-9]{15,44}(\.[0-9]{1,60})?", fullmatch=True)
NEAR_NUMBERS = st.text("0123456789.-/+xXeE n", max_size=8)
NEAR_TIMES = st.from_regex(
    r"[0-9]{4}-[01][0-9]-[0-3][0-9]"
    r"([T t][0-2][0-9](:[0-6][0-9](:[0-6][0-9](\.[0-9]{0,7})?)?)?"
    r"(Z|z|[+-][0-9]{2}(:?[0-9]{2})?)?)?",
    fullmatch=True,
)
EDGES = st.sampled_from(
    [
        *("2147483647", "2147483648", "9223372036854775807", "-9223372036854775809", "00012"),
        *("-0", "0.10", "1.500", "999.99", "1000.00", "123.456", ".5", "5.", "-", "", "1_0", "\n1"),
        *("0000-01-01T00:00Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59.999999Z"),
        *("9999-12-31T23:59:59-01", "2024-05-06T07Z", "2024-05-06T07+01:30", "2024-05-06"),
        *("2024-02-30T00:00Z", "2024-05-06T24:00Z", "2024-05-06T07:08:60Z", "2024-05-06T07:08"),
    ]
)
TEXTS = st.lists(
    st.one_of(st.none(), NUMBERS, st.integers(-1200, 1200).map(str), EDGES, NEAR_TIMES)
    | NEAR_NUMBERS
    | LONG_NUMBERS,
    max_size=3,
)


def scalar_of(text: str) -> Scalar:
    scalar = parse_type(text)
    assert isinstance(scalar, Scalar)
    return scalar


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    session = Session({}, threads=1)
    yield session
    session.close()


def by_sql_or_python(
    session: Session, scalar: Scalar, kind: pa.DataType, texts: list[str | None]
) -> pa.Array:
    given = pa.table({"t": pa.array(texts, pa.string())})
    rows = session.table_of(f"SELECT {reading(scalar, 't')} AS v FROM texts", "texts", given)
    found = rows["v"].to_pylist()
    again = [
        exact_value(scalar, text) if value is None and text is not None else value
        for value, text in zip(found, texts, strict=True)
    ]
    return pa.array(again, kind)


@settings(max_examples=examples(900), deadline=None)
@given(st.sampled_from(CONVERTED), TEXTS)
def test_values_are_those_of_sql_and_python(
    session: Session, declared: str, texts: list[str | None]
) -> None:
    scalar, kind = scalar_of(declared), arrow_type(declared)
    for some in (texts, *([one] for one in texts)):
        found = usual_values(scalar, pa.chunked_array([pa.array(some, pa.string())]))
        if found is not None:
            expected = by_sql_or_python(session, scalar, kind, some)
            assert found.type == kind
            assert found.combine_chunks().equals(expected)
            assert expected.null_count == some.count(None)


@pytest.mark.parametrize(
    ("declared", "texts"),
    [
        ("int", ["-12", "0"]),
        ("long", ["9223372036854775807", None]),
        ("decimal(18,2)", ["12.5", "-0.05", "7", None]),
        ("decimal(38,18)", ["1.000000000000000001"]),
        ("timestamp", ["2024-05-06T07:08:09Z", "2024-05-06 07:08:09.123456+02:00", None]),
    ],
)
def test_usual_notations_need_no_sql(declared: str, texts: list[str | None]) -> None:
    chunks = pa.chunked_array([pa.array([None, *texts, "x"][1:-1]), pa.array(texts).slice(1)])
    found = usual_values(scalar_of(declared), chunks)
    assert found is not None
    assert found.null_count == chunks.null_count


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        *[("long", text) for text in ("0x1F", "1E2", "+5", "1.0", "", " 1")],
        *[("decimal(5,2)", text) for text in ("nan", "1000", "0.001", "1E1", "0.1" + "0" * 40)],
        ("decimal(38,18)", "6202786838738069560423041144"),  # modulo 2^128 it would fit
        ("decimal(38,18)", f"0.{'0' * 56}1"),
        *[("timestamp", text) for text in ("2024-05-06T07Z", "2024-05-06", "0000-01-01T00:00Z")],
        ("timestamp", "9999-12-31T23:59:59-01"),
        ("double", "1.5"),
        ("string", "a"),
    ],
)
def test_other_texts_are_left_to_sql(declared: str, text: str) -> None:
    assert usual_values(scalar_of(declared), pa.chunked_array([pa.array([text])])) is None
