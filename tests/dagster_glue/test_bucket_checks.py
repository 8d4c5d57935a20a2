"""Checks of a dataset with buckets: a bucket that passes does not hide one that fails."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from dagster import AssetCheckEvaluation, AssetCheckKey, AssetMaterialization

from datazone_dagster import Expect
from datazone_dagster.dagster_glue.checks import bucket_checks
from datazone_dagster.model.key_bucket import KeyBucket, key_buckets
from tests.apply.test_buckets import slots_of_ids
from tests.dagster_glue.conftest import KEYS, MakeWorld, ScriptedResource, World, orders_transform
from tests.examples import LONG


def keys_of(bucket: KeyBucket) -> list[str]:
    ids = [f"k{number}" for number in range(40)]
    slots = slots_of_ids(ids)
    return [one for one, slot in zip(ids, slots, strict=True) if bucket.has_some_of(slot, slot)]


def apply(world: World, bucket: KeyBucket, status: str, *, count: int = 2) -> bool:
    for key in keys_of(bucket)[:count]:
        world.put(key, status)
    world.tick()
    return world.run("apply_orders", partition=bucket.name, raise_on_error=False).success


def told(world: World, name: str) -> tuple[bool, str, str, dict[str, Any]]:
    found = world.latest(AssetCheckKey(KEYS.dataset("orders"), name))
    assert isinstance(found, AssetCheckEvaluation)
    values = {key: entry.value for key, entry in found.metadata.items()}
    return found.passed, found.severity.value, found.description or "", values


def test_a_bucket_that_fails_stands_until_its_own_next_run(make_world: MakeWorld) -> None:
    world = make_world(orders_transform(buckets=2, expect={"known": "status <> 'lost'"}))
    first, second = key_buckets(2)
    assert apply(world, second, "lost")
    assert told(world, "expect_known")[:2] == (False, "WARN")
    assert apply(world, first, "placed")
    passed, severity, text, values = told(world, "expect_known")
    assert (passed, severity) == (False, "WARN")
    assert text.startswith("Bucket 2-of-2: 2 of 2 rows of the last report violate it")
    assert (values["violations"], values["rows_checked"]) == (0, 2)  # of the run's own rows
    # A run without rows changes nothing about what is known of its bucket.
    assert world.run("apply_orders", partition=second.name).success
    passed, _, text, values = told(world, "expect_known")
    assert (passed, values["violations"]) == (False, 2)
    assert apply(world, second, "found")
    assert told(world, "expect_known")[0]
    assert apply(world, first, "placed")
    assert told(world, "expect_known")[0]


def test_a_run_that_fails_by_a_rule_stands_for_its_bucket(make_world: MakeWorld) -> None:
    rule = Expect("status <> 'lost'", on_violation="fail")
    world = make_world(orders_transform(buckets=2, expect={"known": rule}))
    first, second = key_buckets(2)
    assert not apply(world, second, "lost")
    assert apply(world, first, "placed")
    passed, severity, text, _ = told(world, "expect_known")
    assert (passed, severity) == (False, "ERROR")
    assert "Bucket 2-of-2: " in text
    assert "nothing of their chunk was applied" in text


def test_a_run_that_stays_tells_of_another_one_that_reported_at_the_same_time(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own check passes, which it repeats after minutes only."""
    transform = orders_transform(buckets=2, expect={"known": "status <> 'lost'"})
    world = make_world(transform)
    first, second = key_buckets(2)
    context: Any = SimpleNamespace(instance=world.instance)
    monkeypatch.setattr(f"{bucket_checks.__name__}.bucket_of_run", lambda *_: first)
    key = AssetCheckKey(KEYS.dataset("orders"), "expect_known")
    passes = AssetCheckEvaluation(asset_key=key.asset_key, check_name=key.name, passed=True)
    materialized = AssetMaterialization(key.asset_key)

    def events() -> Iterator[AssetCheckEvaluation | AssetMaterialization]:
        yield passes
        monkeypatch.undo()
        assert apply(world, second, "lost")
        yield materialized
        yield materialized

    told = list(bucket_checks.across_buckets(events(), context, transform, KEYS))
    assert [isinstance(one, AssetMaterialization) for one in told] == [False, True, False, True]
    before, after = told[0], told[2]
    assert isinstance(before, AssetCheckEvaluation)
    assert isinstance(after, AssetCheckEvaluation)
    assert (before.passed, after.passed) == (True, False)
    assert str(after.description).startswith("Bucket 2-of-2: 2 of 2 rows")


@pytest.mark.parametrize("of", [4, *([1] if LONG else [])])
def test_another_number_of_buckets_takes_over_what_stands(make_world: MakeWorld, of: int) -> None:
    expect = {"known": "status <> 'lost'"}
    world = make_world(orders_transform(buckets=2, expect=expect))
    lost = keys_of(KeyBucket(2, 2))
    assert apply(world, KeyBucket(2, 2), "lost", count=len(lost))
    other = make_world(orders_transform(buckets=of, expect=expect))
    other.stream = ScriptedResource.streams["orders"] = world.stream
    parts = [one for one in key_buckets(of) if one.overlaps(KeyBucket(2, 2))]
    for bucket in parts:
        assert not told(other, "expect_known")[0]
        for key in set(keys_of(bucket)) & set(lost):
            other.put(key, "found")
        other.tick()
        other.run("apply_orders", partition=bucket.name if of > 1 else None)
    assert told(other, "expect_known")[0]


def test_values_that_did_not_fit_stand_and_a_changed_schema_is_told_once(
    make_world: MakeWorld,
) -> None:
    world = make_world(orders_transform(buckets=2))
    first, second = key_buckets(2)
    (key, *_) = keys_of(second)
    world.stream.put({"id": {"S": key}, "status": {"N": "1"}})
    assert apply(world, second, "placed", count=0)
    assert told(world, "schema")[3]["values_not_fitting"] == 1
    assert apply(world, first, "placed")
    passed, _, text, _ = told(world, "schema")
    assert not passed
    assert text.startswith("Bucket 2-of-2: Values have another type than the function reads")
    assert apply(world, second, "placed")
    assert told(world, "schema")[0]
