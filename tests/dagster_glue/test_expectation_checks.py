"""A check for each expectation: results of runs, of failed runs, and of runs without rows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dagster import AssetCheckEvaluation, AssetCheckKey, AssetCheckSeverity

from datazone_dagster import Expect, build_definitions
from datazone_dagster.errors import DefinitionError
from tests.dagster_glue.conftest import KEYS, MakeWorld, World, orders_transform


def known(world: World, rule: str) -> tuple[bool, str, dict[str, Any], str]:
    found = world.latest(AssetCheckKey(KEYS.dataset("orders"), f"expect_{rule}"))
    assert isinstance(found, AssetCheckEvaluation)
    values = {name: entry.value for name, entry in found.metadata.items()}
    return found.passed, found.severity.value, values, found.description or ""


def test_each_expectation_has_a_check_with_its_counts(make_world: MakeWorld) -> None:
    later = Expect("status <> 'odd'", on_violation="quarantine")
    world = make_world(orders_transform(expect={"known": "status <> 'lost'", "even": later}))
    world.put("a")
    world.put("b", "lost")
    world.put("c", "odd")
    world.run_until_idle()
    passed, severity, values, text = known(world, "known")
    assert (passed, severity) == (False, "WARN")
    assert (values["violations"], values["rows_checked"]) == (1, 2)
    assert "1 of 2 rows of the last report violate it: status <> 'lost'." in text
    assert "They are in the dataset. The first has the _dz_key 2:idS1:b." in text
    _, _, values, text = known(world, "even")
    assert (values["violations"], values["rows_checked"]) == (1, 3)
    assert "Their changes wait in the quarantine" in text
    assert world.rows() == {"a": "placed", "b": "lost"}

    # A run without rows changes nothing about what is known; the next rows do.
    world.run("apply_orders")
    assert known(world, "known")[:2] == (False, "WARN")
    world.put("b", "found")
    world.run_until_idle()
    assert known(world, "known")[0]
    materialized = world.instance.fetch_materializations(KEYS.dataset("orders"), limit=1).records
    (last,) = [one.asset_materialization for one in materialized]
    assert last is not None
    assert last.metadata["rows_violating"].value == 0


def test_a_column_that_is_not_there_warns_until_it_comes(make_world: MakeWorld) -> None:
    world = make_world(orders_transform(expect={"known": "statsu <> 'lost'"}))
    world.put("a")
    world.run_until_idle()
    told = known(world, "known")
    assert told[:2] == (False, "WARN")
    assert (told[2]["violations"], told[2]["missing_columns"]) == (0, "statsu")
    assert "status" in told[2]["columns"]
    assert 'There is no column "statsu": it counts as null. Available columns: ' in told[3]
    # A run without rows changes nothing about what is known.
    world.run("apply_orders")
    assert known(world, "known") == told


def test_a_rule_that_fails_the_run_fails_its_check(make_world: MakeWorld) -> None:
    rule = Expect("status <> 'lost'", on_violation="fail")
    world = make_world(orders_transform(expect={"known": rule}), preview=False)
    world.put("secret-1", "lost")
    world.tick()
    done = world.run("apply_orders", raise_on_error=False)
    assert not done.success
    passed, severity, values, text = known(world, "known")
    assert (passed, severity, values["violations"]) == (False, AssetCheckSeverity.ERROR.value, 1)
    assert "nothing of their chunk was applied" in text
    # preview=False: no value of a row in the event log but the key.
    logged = json.dumps([str(event) for event in done.all_events])
    assert "violate the expectation" in logged
    assert "status = lost" not in logged
    assert not (world.root / "lake" / "orders").exists()


def test_a_condition_that_is_no_sql_is_refused_when_the_definitions_are_built() -> None:
    with pytest.raises(DefinitionError, match=r"Dataset\('orders'\): expectation 'known'"):
        build_definitions([orders_transform(expect={"known": "status <>"})])
