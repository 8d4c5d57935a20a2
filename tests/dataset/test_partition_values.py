"""Partition values are exact for every reader, or their records wait in the quarantine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import duckdb
import pytest
from deltalake import DeltaTable

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.dataset.read_dataset import read
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.partition_folder import MOST_BYTES, folder_name, value_problem
from datazone_dagster.pipeline import apply_transform, drain_once
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream

Mode = Literal["merge", "append", "history"]
SOURCE = DynamoDBSource("orders")
LONGEST = "x" * (MOST_BYTES - len("city="))
EXACT = ["plain", "a/b=c %", "Zürich", LONGEST, "ü" * 41, "x" * 199]
REFUSED = ["", LONGEST + "x", "ü" * 42, "y" * 300]


def by_city(mode: Mode, *, reads: bool = False, deletes: Any = "hard") -> Transform:
    def function(orders: Frame) -> Frame:
        if reads:
            assert orders.arrow().num_rows
        return orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.city.S as city")

    return transform(
        input_mapping={"orders": Input(Stream(source=SOURCE))},
        output_mapping={
            "out": Output(Dataset("out", mode=mode, partition_by="city", deletes=deletes))
        },
        name="cities",
    )(function)


def land(layout: Layout, stream: ScriptedStream, cities: dict[str, str]) -> None:
    for key, city in cities.items():
        stream.put({"id": {"S": key}, "city": {"S": city}})
    drain_once(SOURCE, stream, layout)


@pytest.mark.parametrize("reads", [False, True])
@pytest.mark.parametrize("mode", ["merge", "append", "history"])
def test_every_reader_sees_the_exact_value_or_it_is_quarantined(
    tmp_path: Path, mode: Mode, reads: bool
) -> None:
    layout = Layout(str(tmp_path))
    cities = {f"k{number}": city for number, city in enumerate([*EXACT, *REFUSED])}
    land(layout, ScriptedStream(), cities)
    report = apply_transform(by_city(mode, reads=reads), layout)["out"]
    assert (report.quarantined, report.row_count) == (len(REFUSED), len(EXACT))
    expected = {key: city for key, city in cities.items() if city in EXACT}
    reader = read(layout, "out")
    assert reader is not None
    rows = {
        "ours": reader.arrow().to_pylist(),
        "lazy": reader.lazy().collect().to_dicts(),
        "delta-rs": DeltaTable(str(tmp_path / "out")).to_pyarrow_table().to_pylist(),
        "DuckDB": duckdb.from_arrow(reader.duckdb().to_arrow_table()).to_arrow_table().to_pylist(),
    }
    for name, found in rows.items():
        assert {row["id"]: row["city"] for row in found} == expected, name
    waiting = Quarantine(layout, "out").waiting()
    assert sorted(waiting["reason"].to_pylist()) == sorted(
        f"the contract refuses it: {value_problem('city', city)}" for city in REFUSED
    )
    assert all(image is not None for image in waiting["new_image"].to_pylist())


def test_a_key_with_a_refused_value_keeps_its_row_until_a_good_one_comes(tmp_path: Path) -> None:
    layout, stream = Layout(str(tmp_path)), ScriptedStream()
    for city in ("Rome", "", "Oslo"):
        land(layout, stream, {"a": city})
        apply_transform(by_city("merge"), layout)
        reader = read(layout, "out")
        assert reader is not None
        assert reader.arrow(["city"])["city"].to_pylist() == [city or "Rome"]


@pytest.mark.parametrize("value", [*EXACT, None, "2024-01-01 00:00:00.000000"])
def test_a_folder_name_is_exact(value: str | None) -> None:
    name = folder_name("city", value)
    assert len(name.encode()) <= MOST_BYTES
    assert name == f"city={'__HIVE_DEFAULT_PARTITION__' if value is None else quote(value, '')}"


def test_a_value_that_an_earlier_version_wrote_still_has_a_folder() -> None:
    assert len(folder_name("city", "y" * 300)) == MOST_BYTES
