"""Examples run: their transforms on scripted streams, the report in Dagster."""

from __future__ import annotations

import runpy
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from dagster import AssetKey, DagsterInstance, Definitions

from datazone_dagster.testing import ScriptedStream, run_transform

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = sorted(one.parent.name for one in EXAMPLES.glob("*/definitions.py"))
Rows = list[dict[str, Any]]


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / name / "definitions.py"))


def shown(rows: Any) -> Rows:
    """Rows without the columns of the library, in the order of their first columns."""
    found = [
        {name: value for name, value in row.items() if not name.startswith("_dz_")}
        for row in rows.to_pylist()
    ]
    return sorted(found, key=lambda row: [str(value) for value in row.values()])


@pytest.mark.parametrize("name", NAMES)
def test_an_example_can_be_loaded_and_says_what_it_shows(name: str) -> None:
    Definitions.validate_loadable(example(name)["defs"])
    assert (EXAMPLES / name / "README.md").read_text("utf-8").startswith("# ")


def test_a_single_table_becomes_four_datasets(tmp_path: Path) -> None:
    shop_tables = example("single_table")["shop_tables"]
    stream = ScriptedStream("shop", key=("pk", "sk"))

    def put(pk: str, sk: str, **attributes: dict[str, str]) -> None:
        stream.put({"pk": {"S": pk}, "sk": {"S": sk}, **attributes})

    put("CUSTOMER#7", "PROFILE", name={"S": "Ada"}, email={"S": "Ada@Example.org"})
    put("CUSTOMER#7", "ORDER#o-1", status={"S": "placed"}, total={"N": "25.80"})
    put("CUSTOMER#7", "ORDER#o-2", status={"S": "placed"}, total={"N": "9"})
    put("ORDER#o-1", "LINE#1", sku={"S": "mug"}, quantity={"N": "2"}, total={"S": "25.80 EUR"})
    put("PRODUCT#mug", "PRODUCT", price={"N": "12.90"})
    put("PRODUCT#mug", "PRODUCT", price={"N": "13.50"})
    put("CUSTOMER#7", "ORDER#o-1", status={"S": "paid"}, total={"N": "25.80"})
    stream.delete({"pk": {"S": "CUSTOMER#7"}, "sk": {"S": "ORDER#o-2"}})

    tables = run_transform(shop_tables, stream, tmp_path)
    assert shown(tables["customers"]) == [
        {"customer_id": "7", "name": "Ada", "email": "ada@example.org"}
    ]
    assert shown(tables["orders"]) == [
        {"order_id": "o-1", "customer_id": "7", "status": "paid", "total": Decimal("25.80")}
    ]
    assert shown(tables["order_lines"]) == [
        {"order_id": "o-1", "line": 1, "sku": "mug", "quantity": 2}
    ]
    prices = tables["products"].sort_by("_dz_valid_from").to_pylist()
    assert [(row["price"], row["_dz_is_current"]) for row in prices] == [
        (Decimal("12.90"), False),
        (Decimal("13.50"), True),
    ]


def test_the_archive_outlives_the_time_to_live(tmp_path: Path) -> None:
    readings = example("iot")["readings"]
    stream = ScriptedStream("readings", key=("device", "at"))
    keys = [{"device": {"S": "d-1"}, "at": {"N": str(1_800_000_000 + n)}} for n in range(3)]
    for key, celsius in zip(keys, ("21.5", "81.25", "22"), strict=True):
        stream.put({**key, "celsius": {"N": celsius}, "battery": {"N": "0.5"}})
    run_transform(readings, stream, tmp_path)
    stream.delete(keys[0], ttl=True)
    stream.delete(keys[2])

    tables = run_transform(readings, stream, tmp_path)
    archive = shown(tables["readings_archive"])
    assert [(row["celsius"], row["battery"]) for row in archive] == [(21.5, 0.5), (81.25, 0.5)]
    assert {row["day"] for row in archive} == {date(2027, 1, 15)}
    assert [row["celsius"] for row in shown(tables["alarms"])] == [81.25]


def test_the_report_follows_the_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAZONE_LAKEHOUSE_URI", str(tmp_path / "lakehouse"))
    monkeypatch.setenv("REPORTS", str(tmp_path / "reports"))
    code = example("orders_sql")
    stream = ScriptedStream("orders", key=("orderId",))

    def put(order_id: str, status: str, total: str, day: int) -> None:
        item = {"orderId": order_id, "status": status, "placedAt": f"2026-03-{day:02}T10:00:00Z"}
        stream.put({name: {"S": text} for name, text in item.items()} | {"total": {"N": total}})

    put("o-1", "paid", "10.50", 1)
    put("o-2", "placed", "4.50", 1)
    put("o-3", "placed", "7", 2)
    put("o-3", "cancelled", "7", 2)
    put("o-4", "placed", "1", 2)
    run_transform(code["current_orders"], stream, tmp_path / "lakehouse")

    with DagsterInstance.ephemeral() as instance:
        job = code["defs"].resolve_implicit_global_asset_job_def()
        keys = [AssetKey("daily_revenue")]
        assert job.execute_in_process(instance=instance, asset_selection=keys).success
    report = duckdb.read_parquet(str(tmp_path / "reports" / "daily_revenue.parquet"))
    assert report.fetchall() == [
        (date(2026, 3, 1), 2, Decimal("15.00")),
        (date(2026, 3, 2), 1, Decimal("1.00")),
    ]
