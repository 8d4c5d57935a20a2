"""A memory budget that is not the one that somebody may expect is told where that person looks."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest
from dagster import AssetCheckEvaluation, AssetCheckSeverity

from datazone_dagster.pipeline import ApplySettings, DrainSettings
from datazone_dagster.process import container
from datazone_dagster.rows.kept_indexes import KEPT_INDEXES, MOST_BYTES
from tests.dagster_glue.conftest import KEYS, MakeWorld, World, orders_transform

HEALTH = "dynamodb/orders:stream_health"
LARGE = 1 << 40


@pytest.fixture(autouse=True)
def in_512_mib(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(container, "memory_limit_bytes", lambda: 512 << 20)
    monkeypatch.setattr("datazone_dagster.apply.chunk_size.release_memory_at_once", lambda: None)
    threads = pa.cpu_count()
    yield
    pa.set_cpu_count(threads)
    KEPT_INDEXES.limit(MOST_BYTES)


def budgets(world: World) -> tuple[list[str], AssetCheckEvaluation]:
    """The budgets that the metadata of change log and dataset name, and the check of the stream."""
    world.put("a")
    tick = world.tick()
    [request] = tick.requests
    [landed] = tick.materializations()
    result = world.run(str(request.job_name))
    assert result.success
    [*_, event] = world.instance.fetch_materializations(KEYS.dataset("orders"), limit=1).records
    assert event.asset_materialization is not None
    found = (landed.metadata, event.asset_materialization.metadata)
    texts = [str(one["memory_budget"].value) if "memory_budget" in one else "" for one in found]
    return texts, tick.checks()[HEALTH]


def test_a_default_that_the_container_cuts_is_in_the_metadata(make_world: MakeWorld) -> None:
    world = make_world(orders_transform())
    (of_drain, of_run), health = budgets(world)
    assert "DrainSettings(memory_budget=...) is half of that, 256 MiB, instead of" in of_drain
    assert "ApplySettings(memory_budget=...) is half of that, 256 MiB, instead of" in of_run
    assert health.passed


def test_a_budget_above_the_memory_warns(make_world: MakeWorld) -> None:
    apply, drain = ApplySettings(memory_budget=LARGE), DrainSettings(memory_budget=LARGE)
    world = make_world(orders_transform(), apply_settings=apply, drain_settings=drain)
    texts, health = budgets(world)
    assert ["may kill the process" in one for one in texts] == [True, True]
    assert health.severity is AssetCheckSeverity.WARN
    assert "DrainSettings(memory_budget=...) is" in str(health.description)


def test_a_default_that_fits_is_not_in_the_metadata(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "memory_limit_bytes", lambda: 4 << 30)
    assert budgets(make_world(orders_transform()))[0] == ["", ""]
