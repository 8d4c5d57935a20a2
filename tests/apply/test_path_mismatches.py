"""Values of another type than a path reads are counted, quarantined or refused, never just null."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.errors import DefinitionError, TransformError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.contract import OPEN
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.path_history import ENOUGH_RECORDS
from datazone_dagster.model.report import ApplyReport
from datazone_dagster.observe.level import Level
from datazone_dagster.observe.schema_change import SchemaStatus, schema_status
from datazone_dagster.pipeline import (
    apply_transform,
    drain_once,
    read_dataset,
    rebuild_dataset,
    redrive_dataset,
)
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream

SOURCE = DynamoDBSource("orders")


class World:
    """A stream with one dataset, whose function and settings change from run to run."""

    def __init__(self, root: Path, key: str = "id") -> None:
        self.layout = Layout(str(root))
        self.stream = ScriptedStream("orders", key=(key,))
        self.key = key

    def put(self, key: str, **attributes: Any) -> None:
        self.stream.put({self.key: {"S": key}, **attributes})

    def apply(self, function: Callable[[Frame], object], **settings: Any) -> ApplyReport:
        while not drain_once(SOURCE, self.stream, self.layout).caught_up:
            pass
        return apply_transform(flow(function, **settings), self.layout)["d"]

    def rows(self) -> list[dict[str, Any]]:
        table = read_dataset(self.layout, "d")
        names = [name for name in table.column_names if not name.startswith("_dz_")]
        found: list[dict[str, Any]] = table.select(names).sort_by(names[0]).to_pylist()
        return found

    def reasons(self) -> list[str]:
        found: list[str] = Quarantine(self.layout, "d").waiting()["reason"].to_pylist()
        return found


def flow(
    function: Callable[[Frame], object], mode: Any = "merge", **settings: Any
) -> Transform[Any, Any]:
    return transform(
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"d": Output(Dataset("d", mode=mode))},
        name="flow",
        **settings,
    )(function)


def select(*columns: str) -> Callable[[Frame], Frame]:
    return lambda changes: changes.select("dynamodb.Keys.id.S as id", *columns)


def status(report: ApplyReport) -> SchemaStatus:
    return schema_status(
        report.columns,
        report.columns,
        (),
        contract=OPEN,
        dataset_id="d",
        mismatches=report.mismatches,
        unfound_paths=report.unfound_paths,
        records=report.records,
        lacks_old_images=report.lacks_old_images,
    )


def counted(report: ApplyReport) -> list[tuple[str, str, int]]:
    return [(one.attribute, one.descriptor, one.changes) for one in report.mismatches]


def test_a_value_of_another_type_is_counted_by_path_and_warned_of(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put("a", total={"N": "5"})
    world.put("b", total={"S": "7"})
    report = world.apply(select("dynamodb.NewImage.total.N as total"))
    assert counted(report) == [("total", "S", 1)]
    found = status(report)
    assert found.level is Level.WARN
    assert "1 of 2 records has total as S (dynamodb.NewImage.total.N reads it)" in found.reason
    assert world.rows() == [{"id": "a", "total": "5"}, {"id": "b", "total": None}]


@pytest.mark.parametrize(
    ("path", "value", "descriptor"),
    [
        ("dynamodb.NewImage.v.BOOL", {"S": "true"}, "S"),
        ("dynamodb.NewImage.v.S", {"BOOL": True}, "BOOL"),
        ("len(dynamodb.NewImage.v.L)", {"SS": ["x"]}, "SS"),
        ("dynamodb.NewImage.v.SS", {"L": [{"S": "x"}]}, "L"),
        ("dynamodb.NewImage.v.M.city.S", {"S": "x"}, "S"),
        ("dynamodb.NewImage.v.L[1].S", {"M": {}}, "M"),
    ],
)
def test_every_pair_of_types_is_told(
    tmp_path: Path, path: str, value: dict[str, Any], descriptor: str
) -> None:
    world = World(tmp_path)
    world.put("a", v=value)
    world.put("b")
    world.put("c", v={"NULL": True})
    report = world.apply(select(f"{path} as v"))
    assert counted(report) == [("v", descriptor, 1)]


def test_an_attribute_in_a_map_is_told_by_its_own_name(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put("a", **{"the address": {"M": {"zip/code": {"N": "1"}}}})
    world.put("b", **{"the address": {"M": {}}})
    report = world.apply(select('dynamodb.NewImage."the address".M."zip/code".S as code'))
    assert counted(report) == [("zip/code", "N", 1)]


def test_a_function_that_reads_both_types_has_no_mismatch(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put("a", total={"N": "5"}, other={"N": "1"})
    world.put("b", total={"S": "7"}, other={"S": "x"})
    report = world.apply(
        select(
            "coalesce(dynamodb.NewImage.total.N, dynamodb.NewImage.total.S) as total",
            "dynamodb.NewImage.other.N as other",
            "dynamodb.NewImage.other as raw",
        )
    )
    assert counted(report) == []
    assert [row["total"] for row in world.rows()] == ["5", "7"]


def test_changes_that_the_function_filters_out_may_have_any_type(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put("a", kind={"S": "order"}, data={"N": "5"})
    world.put("b", kind={"S": "user"}, data={"S": "Ann"})
    world.put("c", kind={"N": "1"}, data={"N": "5"})

    def orders(changes: Frame) -> Frame:
        kept = changes.filter("dynamodb.NewImage.kind.S = 'order'")
        return kept.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.data.N as data")

    report = world.apply(orders)
    assert counted(report) == [("kind", "N", 1)]


def test_a_null_that_a_later_filter_drops_is_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put("a", total={"S": "7"})
    world.put("b", total={"N": "7"})
    report = world.apply(
        lambda changes: changes.select(
            "dynamodb.Keys.id.S as id", "dynamodb.NewImage.total.N as total"
        ).filter("total is not null")
    )
    assert counted(report) == [("total", "S", 1)]


def test_quarantine_keeps_the_good_value_and_redrive_applies_the_fix(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put("a", total={"N": "5"})
    function = select("dynamodb.NewImage.total.N as total")
    world.apply(function, on_mismatch="quarantine")
    world.put("a", total={"S": "7"})
    world.put("b", total={"N": "1"})
    report = world.apply(function, on_mismatch="quarantine")
    assert (report.quarantined, counted(report)) == (1, [("total", "S", 1)])
    assert world.reasons() == [
        "a path reads another type: 'total' is S, not as in dynamodb.NewImage.total.N"
    ]
    assert world.rows() == [{"id": "a", "total": "5"}, {"id": "b", "total": "1"}]
    both = select("coalesce(dynamodb.NewImage.total.N, dynamodb.NewImage.total.S) as total")
    redrive_dataset(flow(both, on_mismatch="quarantine"), "d", world.layout)
    assert world.rows()[0] == {"id": "a", "total": "7"}


def test_fail_stops_the_run_with_the_path_the_count_and_a_key(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put("good", total={"N": "5"})
    world.put("bad", total={"S": "7"})
    with pytest.raises(TransformError, match=r"1 of 2 changes has total as S.*bad") as caught:
        world.apply(select("dynamodb.NewImage.total.N as total"), on_mismatch="fail")
    assert "coalesce" in caught.value.hint


@pytest.mark.parametrize("mode", ["merge", "append", "history"])
def test_a_key_of_another_type_goes_to_the_quarantine(tmp_path: Path, mode: Any) -> None:
    world = World(tmp_path, key="orderId")
    world.put("1", total={"N": "5"})
    report = world.apply(
        lambda changes: changes.select(
            "dynamodb.NewImage.orderId.N as order_id", "dynamodb.NewImage.total.N as total"
        ),
        mode=mode,
    )
    assert (report.quarantined, report.row_count) == (1, 0)
    assert "'orderId' is S, not as in dynamodb.NewImage.orderId.N" in world.reasons()[0]


def test_a_function_that_reads_its_rows_in_python_is_counted_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put("a", total={"S": "7"})
    function = select("dynamodb.NewImage.total.N as total")
    report = world.apply(lambda changes: function(changes).arrow())
    assert counted(report) == [("total", "S", 1)]


def test_a_path_that_no_record_ever_had_is_told_once_there_were_enough(tmp_path: Path) -> None:
    world = World(tmp_path)
    function = select(
        "dynamodb.NewImage.ttoal.N as total", "dynamodb.NewImage.rare.S as rare", "eventName"
    )
    world.put("first", total={"N": "1"}, rare={"S": "x"})
    report = world.apply(function)
    assert report.unfound_paths == ()
    for number in range(ENOUGH_RECORDS - 1):  # more than one run, and the rare one came before
        world.put(str(number), total={"N": "1"})
        if number == 50:
            assert world.apply(function).unfound_paths == ()
    report = world.apply(function)
    assert [path for path, _ in report.unfound_paths] == ["dynamodb.NewImage.ttoal.N"]
    found = status(report)
    assert found.level is Level.WARN
    assert "dynamodb.NewImage.ttoal.N" in found.reason
    assert "rare" not in found.reason
    world.put("last", ttoal={"N": "1"})
    assert world.apply(function).unfound_paths == ()


def test_what_is_known_about_paths_survives_a_rebuild(tmp_path: Path) -> None:
    world = World(tmp_path)
    function = select("dynamodb.NewImage.ttoal.N as total")
    for number in range(ENOUGH_RECORDS):
        world.put(str(number))
    world.apply(function)
    done = rebuild_dataset(flow(function), "d", world.layout)
    assert done.applied.unfound_paths == (("dynamodb.NewImage.ttoal.N", ENOUGH_RECORDS),)
    world.put("more")
    (unfound,) = world.apply(function).unfound_paths
    assert unfound[1] >= ENOUGH_RECORDS


def test_the_settings_of_a_mismatch_are_checked() -> None:
    with pytest.raises(DefinitionError, match=r"on_mismatch='drop' is unknown"):
        flow(select("eventName"), on_mismatch="drop")


@pytest.mark.parametrize(
    "function",
    [
        lambda changes: changes.items("both"),
        lambda changes: changes.items("old").arrow(),
        select("dynamodb.OldImage.total.N as before"),
        lambda changes: select("dynamodb.OldImage as before")(changes).arrow(),
    ],
)
@pytest.mark.parametrize("view_type", ["NEW_IMAGE", "NEW_AND_OLD_IMAGES"])
def test_old_images_that_the_stream_does_not_have_are_told(
    tmp_path: Path, view_type: str, function: Callable[[Frame], object]
) -> None:
    world = World(tmp_path)
    world.stream = ScriptedStream("orders", view_type=view_type)
    world.put("a", total={"N": "5"})
    world.put("a", total={"N": "6"})
    report = world.apply(function)
    assert report.lacks_old_images == (view_type == "NEW_IMAGE")
    assert ("NEW_AND_OLD_IMAGES" in status(report).reason) == report.lacks_old_images


def test_a_function_that_reads_no_old_image_is_not_told_of_any(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.stream = ScriptedStream("orders", view_type="NEW_IMAGE")
    world.put("a", total={"N": "5"})
    report = world.apply(lambda changes: changes.items())
    assert status(report).level is Level.OK


def test_a_delete_does_not_count_as_lacking_an_attribute(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number in range(ENOUGH_RECORDS):
        world.put(str(number))
    for number in range(ENOUGH_RECORDS // 2):
        world.stream.delete({"id": {"S": str(number)}})
    # Of the latest changes of the keys, half have an image that could have the attribute.
    assert world.apply(select("dynamodb.NewImage.ttoal.N as total")).unfound_paths == ()
