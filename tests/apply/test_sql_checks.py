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


HIDDEN = "max(_dz_key) as _dz_key, max(_dz_version) as _dz_version, "
HIDDEN += "max(_dz_event_time) as _dz_event_time"
OF_KEY = "over (partition by _dz_key order by _dz_version)"


@pytest.mark.parametrize(
    ("query", "function"),
    [
        (f"select *, lag(eventName) {OF_KEY} as before from changes", "lag()"),
        (f"select (lag(dynamodb) {OF_KEY}).Keys.id.S as id from changes", "lag()"),
        (f"select count(*) as n, {HIDDEN} from changes group by _dz_key", "count()"),
        (f"select max(eventID) as e, {HIDDEN} from changes group by _dz_key having sum(1) > 0",
         "sum()"),
        (f"select max(eventID) as e, {HIDDEN} from changes group by _dz_key", ""),
        (f"select arg_max(dynamodb, _dz_version) as e, {HIDDEN} from changes group by _dz_key", ""),
        ("select * from changes qualify row_number() over "
         "(partition by _dz_key order by _dz_version desc) = 1", ""),
        ("select list_sum([dynamodb.SizeBytes, 1]) as n from changes", ""),
    ],
)  # fmt: skip
def test_values_that_depend_on_where_a_chunk_begins_are_warned_of(
    tmp_path: Path, query: str, function: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run(tmp_path, lambda changes: changes.sql(query))
    warned = [text for text in map(str, caplog.messages) if "in the chunk" in text]
    assert len(warned) == (2 if function else 0)  # runs
    assert all(f"{function} sees only" in text and "OldImage" in text for text in warned)


def test_an_append_table_is_not_warned_of_a_result_per_chunk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    query = f"select count(*) as n, {HIDDEN} from changes"
    with caplog.at_level(logging.WARNING):
        run(tmp_path, lambda changes: changes.sql(query), "append")
    assert not [text for text in caplog.messages if "in the chunk" in text]
