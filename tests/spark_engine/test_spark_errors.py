"""Errors of the client of Spark Connect as ours: what they are, and what they do not show."""

from __future__ import annotations

import pytest

from datazone_dagster import SparkEngine
from datazone_dagster.errors import ConcurrentWriterError, SparkError
from datazone_dagster.spark.functions import REFUSED
from datazone_dagster.spark.spark_server import (
    FailingValuesError,
    converted,
    without_parameters,
)


class GaveUpError(Exception):
    def details(self) -> str:
        return "failed to connect to all addresses"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"[USER_RAISED_EXCEPTION] {REFUSED}", FailingValuesError),
        ("Job aborted: [CAST_INVALID_INPUT] The value 'x'", FailingValuesError),
        ("[NUMERIC_VALUE_OUT_OF_RANGE.WITH_SUGGESTION] 1000", FailingValuesError),
        ("[DELTA_CONCURRENT_APPEND] a file was added", ConcurrentWriterError),
        (f"[PARSE_SYNTAX_ERROR] near raise_error('{REFUSED}')", SparkError),
        ("[UNRESOLVED_COLUMN] DIVIDE_BY_ZERO", SparkError),
    ],
)
def test_the_class_of_an_error_decides_not_what_it_quotes(text: str, kind: type[Exception]) -> None:
    assert type(converted(RuntimeError(text), "Running")) is kind


def test_the_cause_of_giving_up_is_told() -> None:
    error = RuntimeError("[RETRIES_EXCEEDED]")
    error.__cause__ = GaveUpError()
    assert "failed to connect to all addresses" in str(converted(error, "Running"))


@pytest.mark.parametrize("shown", ["token=c2Vj%3D%3D", "c2Vj%3D%3D", "c2Vj=="])
def test_parameters_of_the_url_are_not_shown(shown: str) -> None:
    engine = SparkEngine("sc://host/;use_ssl=true;token=c2Vj%3D%3D")
    error = without_parameters(SparkError(f"Parameter {shown} is wrong", hint="Look."), engine)
    assert "c2Vj" not in str(error)
    assert "Parameter ... is wrong" in str(error)
    assert error.hint == "Look."
