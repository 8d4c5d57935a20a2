"""A lookup is frozen when a change is applied; the run says which version it read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, drain_once, read_dataset
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream
from tests.apply.test_ttl_deletes import World as TtlWorld
from tests.apply.test_ttl_deletes import shown_by

PEOPLE, ORDERS = DynamoDBSource("people"), DynamoDBSource("orders")


def people() -> Transform:
    return transform(
        name="people",
        input_mapping={"changes": Input(Stream(source=PEOPLE))},
        output_mapping={"rows": Output(Dataset("people"))},
    )(lambda changes: changes.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.n.S as name"))


def named() -> Transform:
    def function(changes: Any, known: Any) -> Any:
        return changes.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.who.S as who").sql(
            "select changes.id, known.name from changes left join known on known.id = changes.who"
        )

    return transform(
        name="named",
        input_mapping={"changes": Input(Stream(source=ORDERS)), "known": Input(Dataset("people"))},
        output_mapping={"rows": Output(Dataset("named"))},
    )(function)


def test_rows_keep_what_was_looked_up_and_the_run_names_the_version(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    humans, orders = ScriptedStream("people"), ScriptedStream("orders")

    def version_of_people(name: str) -> int:
        humans.put({"id": {"S": "p"}, "n": {"S": name}})
        drain_once(PEOPLE, humans, layout)
        apply_transform(people(), layout)
        return DeltaTable(layout.dataset("people")).version()

    def order(key: str) -> Any:
        orders.put({"id": {"S": key}, "who": {"S": "p"}})
        drain_once(ORDERS, orders, layout)
        return apply_transform(named(), layout)["named"]

    before = version_of_people("Ann")
    report = order("1")
    assert report.lookups == (("people", before, before),)
    after = version_of_people("Anna")
    assert after > before
    report = order("2")
    assert report.lookups == (("people", after, after),)
    rows = read_dataset(layout, "named").to_pylist()
    assert {row["id"]: row["name"] for row in rows} == {"1": "Ann", "2": "Anna"}
    shown = shown_by(TtlWorld(tmp_path), report)
    assert shown["lookups"] == f"people at version {after}"


def test_a_run_without_lookups_shows_none(tmp_path: Path) -> None:
    layout, humans = Layout(str(tmp_path)), ScriptedStream("people")
    humans.put({"id": {"S": "p"}, "n": {"S": "Ann"}})
    drain_once(PEOPLE, humans, layout)
    report = apply_transform(people(), layout)["people"]
    assert report.lookups == ()
    assert "lookups" not in shown_by(TtlWorld(tmp_path), report)
