"""The cost model, compared with the requests of an hour of ticks, runs and maintenance."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest

from datazone_dagster.apply import pacing
from datazone_dagster.changelog import files
from datazone_dagster.dagster_glue.options import REMOTE_TICK_SECONDS
from datazone_dagster.delta import data_file, put_entry, remote_files, store
from datazone_dagster.model.layout import Layout
from datazone_dagster.observe import cost
from datazone_dagster.observe.cost import SECONDS_A_MONTH, Rates, StreamSize, monthly_cost
from datazone_dagster.pipeline import POLLING, ApplySettings, apply_transform
from tests.dagster_glue.conftest import World
from tests.store.proxy import Counts, Proxy
from tests.store.sensor_world import sensor_world

TICKS = 240
"""Ticks of an hour, as many as a sensor in an object store makes."""

KEYS = 50
SEED = 20261128


class Roles:
    """Two processes, the code server and a run, each with files of its own in memory."""

    def __init__(self) -> None:
        self._caches = {one: remote_files.FileCache() for one in ("ticks", "runs")}

    @contextmanager
    def acting(self, role: str) -> Iterator[None]:
        before, store._CACHE = store._CACHE, self._caches[role]
        try:
            yield
        finally:
            store._CACHE = before


@pytest.fixture
def world(s3_lakehouse: Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with sensor_world(s3_lakehouse, tmp_path_factory.mktemp("w")) as found:
        yield found


def price(counts: Counts) -> float:
    """Price of requests: listings are billed as writes, deletes are free."""
    writes = sum(one.method in ("PUT", "POST") or one.kind == "list" for one in counts.requests)
    writes -= counts.by_kind["POST", "delete many"]
    deletes = counts.by_method["DELETE"] + counts.by_kind["POST", "delete many"]
    reads = len(counts) - writes - deletes
    return writes / 1e3 * Rates().price_1k_puts + reads / 1e3 * Rates().price_1k_gets


def modelled(writes_per_second: float) -> float:
    """Price of an hour's requests, without the looks of a run that stays: one read each."""
    size = StreamSize(1, writes_per_second)
    month = monthly_cost(size, POLLING)
    looks = cost._share_with_changes(size, cost.STAY_SECONDS) / cost.LOOK_SECONDS * 3600
    hour = (month.puts_price + month.gets_price) * 3600 / SECONDS_A_MONTH
    return hour - looks / 1e3 * Rates().price_1k_gets


@pytest.mark.store
@pytest.mark.timeout(900)
@pytest.mark.parametrize("writes_per_second", [0.02, 0.5])
def test_an_hour_costs_what_the_model_says(
    writes_per_second: float, world: World, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Commits have the time of the world: by it, the checkpoint is saved once a minute.
    of_world = SimpleNamespace(
        time=lambda: world.clock().timestamp(),
        time_ns=lambda: int(world.clock().timestamp() * 1e9),
    )
    for module in (put_entry, data_file, files):
        monkeypatch.setattr(module, "time", of_world)
    dice, roles, seen = random.Random(SEED), Roles(), list[Counts]()
    options = {**world.layout.storage_options, "user_agent": "run"}
    as_run = replace(world.layout, storage_options=options)
    merge_every = round(pacing.REMOTE_MERGE_EVERY_SECONDS / REMOTE_TICK_SECONDS)
    waiting = False
    for number in range(-4, TICKS):
        for _ in range(int(REMOTE_TICK_SECONDS)):
            if number < 0 or dice.random() < writes_per_second:
                world.put(f"k{dice.randrange(KEYS)}", f"{number}")
                waiting = True
        with proxy.counted() as counts:
            with roles.acting("ticks"):
                world.tick()
            if waiting and number % merge_every == 0:
                with roles.acting("runs"):
                    apply_transform(
                        world.transforms[0], as_run, settings=ApplySettings(), clock=world.clock
                    )
                waiting = False
        world.clock.advance(timedelta(seconds=REMOTE_TICK_SECONDS))
        if number >= 0:  # the first ones begin the processes
            seen.append(counts)
    hour = Counts([one for counts in seen for one in counts.requests])
    kinds = Counter((one.method, one.kind) for one in hour.requests)
    assert price(hour) == pytest.approx(modelled(writes_per_second), rel=0.25), kinds
