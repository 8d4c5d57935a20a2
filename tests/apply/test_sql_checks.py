"""Rows that are there by chance or by the clock are refused; such values are warned of."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.errors import ResultError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, drain_once, read_dataset
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream

SOURCE = DynamoDBSource("orders")


def run(root: Path, function: Callable[[Frame], object], mode: Any = "merge") -> int:
    """Apply a function to two changes in one run and to one in another; return its rows."""
    layout = Layout(str(root))
    stream = ScriptedStream("orders", key=("id",))
    flow = transform(
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"d": Output(Dataset("d", mode=mode))},
        name="flow",
    )(function)
    for number in range(3):
        stream.put({"id": {"S": str(number)}})
        drain_once(SOURCE, stream, layout)
        if number:
            apply_transform(flow, layout)
    return int(read_dataset(layout, "d").num_rows)


@pytest.mark.parametrize("mode", ["merge", "history"])
@pytest.mark.parametrize("condition", ["random() < 0.5", "_dz_event_time < now()"])
def test_rows_by_chance_or_by_the_clock_are_refused(
    tmp_path: Path, condition: str, mode: Any
) -> None:
    with pytest.raises(ResultError, match="decides which rows there are") as caught:
        run(tmp_path, lambda changes: changes.filter(condition).items(), mode)
    assert f"filter('{condition}')" in caught.value.what
    assert "_dz_event_time" in caught.value.hint
    assert "downstream" in caught.value.hint
    with pytest.raises(ResultError, match="decides which rows there are"):
        run(tmp_path, lambda changes: changes.sql(f"from changes where {condition}"), mode)


def test_the_sample_that_the_error_proposes_stays(tmp_path: Path) -> None:
    sample = "md5(_dz_key) < '8'"
    found = {
        run(tmp_path / str(number), lambda changes: changes.items().filter(sample))
        for number in range(2)
    }
    assert len(found) == 1


def test_an_append_table_takes_a_sample(tmp_path: Path) -> None:
    assert run(tmp_path, lambda changes: changes.filter("random() < 2"), "append") == 3


@pytest.mark.parametrize("mode", ["merge", "history", "append"])
def test_values_that_differ_each_time_are_warned_of_once_a_run(
    tmp_path: Path, mode: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run(tmp_path, lambda changes: changes.with_columns("now() as loaded_at"), mode)
    warned = [one.getMessage() for one in caplog.records if "loaded_at" in one.getMessage()]
    assert len(warned) == 2  # runs
    assert "now()" in warned[0]
    assert "_dz_event_time" in warned[0]
