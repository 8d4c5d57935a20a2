"""Functions that use a frame as what it is not: the error says what a frame is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datazone_dagster import Dataset, DynamoDBSource, Input, Output, Stream, transform
from datazone_dagster.errors import ResultError, TransformError
from datazone_dagster.testing import ScriptedStream, run_transform


def apply(function: Callable[[Any], object], lakehouse: Path) -> None:
    def call(orders: object) -> object:
        return function(orders)

    made = transform(
        input_mapping={"orders": Input(Stream(source=DynamoDBSource("orders")))},
        output_mapping={"orders": Output(Dataset("orders"))},
        name="f",
    )(call)
    stream = ScriptedStream("orders", key=("id",))
    stream.put({"id": {"S": "1"}})
    run_transform(made, stream, lakehouse)


@pytest.mark.parametrize(
    "function",
    [
        lambda frame: frame.show(),
        lambda frame: frame["status"],
        list,
        len,
        lambda frame: frame.filter(),
        lambda frame: frame.with_columns(a="b"),
    ],
)
def test_a_frame_is_no_data_frame(function: Callable[[Any], object], tmp_path: Path) -> None:
    with pytest.raises(TransformError, match=r"A frame is SQL over one chunk.*pl\(\), df\(\)"):
        apply(function, tmp_path)


def test_an_error_of_the_functions_own_gets_no_such_advice(tmp_path: Path) -> None:
    with pytest.raises(TransformError) as caught:
        apply(lambda _: {"a": 1}["status"], tmp_path)
    assert "A frame is" not in str(caught.value)


def test_a_function_that_ends_without_a_return_is_asked_for_it(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"returned nothing.*without a return"):
        apply(lambda _: None, tmp_path)
    with pytest.raises(ResultError, match="returned an int,"):
        apply(lambda _: 5, tmp_path)
