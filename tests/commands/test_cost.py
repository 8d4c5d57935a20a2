"""The cost model, compared with the emulator's count of calls and with the polling rules."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.apply import pacing
from datazone_dagster.commands.cost import cost
from datazone_dagster.dagster_glue.options import REMOTE_TICK_SECONDS
from datazone_dagster.drain.polling import (
    LISTENING_SECONDS,
    Activities,
    due,
    record_activity,
)
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model.layout import Layout
from datazone_dagster.observe import cost as costs
from datazone_dagster.observe.cost import (
    SECONDS_A_MONTH,
    StreamSize,
    calls_of_a_shard,
    monthly_calls,
    monthly_cost,
    monthly_runs,
)
from datazone_dagster.observe.kinesis_cost import KinesisStream, kinesis_cost
from datazone_dagster.pipeline import LISTENING, POLLING, ApplySettings, drain_once
from tests.drain.test_polling import TICK, outcome, read
from tests.faults.orders import SOURCE
from tests.faults.world import OrdersTable, stream_client

SHARDS = 4


@pytest.fixture(scope="module")
def endpoint_url() -> Iterator[str]:
    with LocalDynamoDB(shards=SHARDS) as server:
        yield server.endpoint_url


@pytest.mark.parametrize("writes_a_tick", [0, 2, 16])
def test_the_calls_are_those_that_the_emulator_counted(
    endpoint_url: str, tmp_path: Path, writes_a_tick: int
) -> None:
    table = OrdersTable(endpoint_url, seed=writes_a_tick)
    table.create()
    client, layout = stream_client(endpoint_url), Layout(str(tmp_path))
    drain_once(SOURCE, client, layout)  # the first drain of a process makes more calls
    dice, ticks = random.Random(5), 30
    table.admin.counters(reset=True)
    for _ in range(ticks):
        table.write(sum(dice.random() < 0.5 for _ in range(2 * writes_a_tick)))
        drain_once(SOURCE, client, layout)
    counted = table.admin.counters()["calls"]["GetRecords"]
    # Ticks follow one another without a pause: no shard is quiet for long enough to be left out.
    size = StreamSize(SHARDS, writes_a_tick / 5, tick_seconds=5)
    expected = monthly_calls(size, ()) * ticks * size.tick_seconds / SECONDS_A_MONTH
    assert counted == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize("listening", [False, True])
@pytest.mark.parametrize("writes", [0.0, 1 / 2000, 1 / 300, 1 / 60, 1.0])
def test_quiet_shards_are_counted_as_the_drain_polls_them(writes: float, listening: bool) -> None:
    dice, activities, calls, ticks = random.Random(11), Activities(), 0, 40_000
    tick_seconds, polling = (LISTENING_SECONDS, LISTENING[1:]) if listening else (TICK, POLLING)
    waiting, intervals = 0, LISTENING if listening else POLLING
    for tick in range(ticks):
        waiting += dice.random() < -math.expm1(-writes * tick_seconds)
        if due([read("s")], activities, tick * tick_seconds, intervals).reads:
            calls += 1 + (waiting > 0)
            record_activity(activities, [outcome("s", records=waiting)], tick * tick_seconds)
            waiting = 0
    expected = (
        monthly_calls(StreamSize(1, writes, tick_seconds=tick_seconds), polling)
        * ticks
        * tick_seconds
        / SECONDS_A_MONTH
    )
    assert calls == pytest.approx(expected, rel=0.1)


@given(records=st.floats(0, 5000), record_bytes=st.integers(200, 400_000))
def test_a_shard_needs_its_full_pages_and_an_empty_one(records: float, record_bytes: int) -> None:
    page = max(1, min(1000, 1_000_000 // record_bytes))
    calls = calls_of_a_shard(records, record_bytes)
    assert 1 <= calls <= records / page + 2
    assert calls >= records / page + 1 - 1e-6
    assert calls_of_a_shard(records + 1, record_bytes) > calls - 0.01


def test_more_of_anything_never_costs_less() -> None:
    base = StreamSize(40, 5000)
    price = monthly_cost(base, POLLING).price
    for more in (
        StreamSize(80, 5000),
        StreamSize(40, 10_000),
        StreamSize(40, 5000, record_bytes=9000),
        StreamSize(40, 5000, tick_seconds=2.5),
        StreamSize(40, 5000, datasets=2),
    ):
        assert monthly_cost(more, POLLING).price > price
    assert monthly_cost(base, POLLING, kept_days=1).price < price


def test_the_command_prints_a_table() -> None:
    printed = CliRunner().invoke(cost, ["--shards", "40", "--writes", "5000"])
    assert printed.exit_code == 0
    found = monthly_cost(StreamSize(40, 5000), POLLING)
    for number in (found.calls, found.puts, found.gets):
        assert f"{number:,.0f}" in printed.output
    assert f"${found.price:,.2f}" in printed.output.replace(" ", "")
    listening = CliRunner().invoke(cost, ["--shards", "4", "--writes", "10", "--listening"])
    calls = monthly_calls(StreamSize(4, 10, tick_seconds=1), LISTENING[1:])
    assert f"{calls:,.0f}" in listening.output
    refused = CliRunner().invoke(cost, ["--shards", "0", "--writes", "1"])
    assert refused.exit_code == 2


def test_kinesis_adds_what_its_pages_of_prices_say() -> None:
    """By hand: 100 changes a second of 1,800 bytes are 259.2 million a month, of 494.4 GB."""
    changes = 100 * SECONDS_A_MONTH
    week = kinesis_cost(KinesisStream("provisioned", 4, 7), changes, 1800)
    assert week.units == changes  # an image has less than 1 KB
    assert week.units_price == pytest.approx(25.92)
    assert week.stream_price == pytest.approx(4 * 720 * 0.015 + 259.2 * 0.014)
    assert week.kept_price == pytest.approx(4 * 720 * 0.02)
    year = kinesis_cost(KinesisStream("provisioned", 4, 365), changes, 1800)
    assert year.kept_price - week.kept_price == pytest.approx(494.4 / 30 * 358 * 0.023, rel=1e-4)
    day = kinesis_cost(KinesisStream("on-demand", 4), changes, 1800)
    assert day.stream_price == pytest.approx(720 * 0.04 + 494.4 * 0.12, rel=1e-4)
    assert day.kept_price == 0
    week = kinesis_cost(KinesisStream("on-demand", 4, 7), changes, 1800)
    assert week.kept_price == pytest.approx(494.4 / 30 * 6 * 0.10, rel=1e-4)
    large = kinesis_cost(KinesisStream("provisioned", 0), 1e6, 60_000)
    assert large.units == 30e6
    assert large.stream_price == pytest.approx(3 * 0.014)


def test_the_command_adds_kinesis() -> None:
    arguments = ["--shards", "4", "--writes", "100", "--kinesis", "provisioned"]
    printed = CliRunner().invoke(cost, arguments).output
    through = kinesis_cost(KinesisStream("provisioned", 4), 100 * SECONDS_A_MONTH, 1800)
    month = monthly_cost(StreamSize(4, 100), POLLING)
    price = month.price - month.calls_price + through.price
    assert "all are free" in printed
    assert f"total${price:,.2f}" in printed.replace(" ", "")
    shown = json.loads(CliRunner().invoke(cost, [*arguments, "--json"]).output)
    assert shown["price"] == pytest.approx(price)
    assert shown["kinesis"]["stream_price"] == pytest.approx(through.stream_price)


@pytest.mark.parametrize("writes", [0.1, 0.2, 1.0, 5.0])
def test_constant_small_traffic_costs_less_than_five_dollars(writes: float) -> None:
    month = monthly_cost(StreamSize(shards=1, writes_per_second=writes), POLLING)
    assert 2 < month.puts_price + month.gets_price < month.price < 5.1


def test_the_cpu_of_all_processes_is_counted() -> None:
    """As measured: a daemon, its code server and a run, 10 changes a second, 5-second ticks."""
    month = monthly_cost(StreamSize(2, 10.0, tick_seconds=5.0), POLLING)
    seen = {"drains": 0.035, "runs": 0.013 + 3.0 / 3600, "daemon": 0.025}
    counted = {
        "drains": month.drain_cpu_seconds / SECONDS_A_MONTH,
        "runs": month.run_cpu_seconds / SECONDS_A_MONTH,
        "daemon": month.daemon_cpu_seconds / SECONDS_A_MONTH,
    }
    assert counted == pytest.approx(seen, rel=0.1)
    assert month.cores == pytest.approx(sum(counted.values()))
    idle = monthly_cost(StreamSize(2, 0.0, tick_seconds=5.0), POLLING)
    assert idle.cores == pytest.approx(0.026 + 0.014, rel=0.1)
    assert idle.runs == 0


@pytest.mark.parametrize("writes", [1 / 600, 1 / 60, 1 / 20, 1.0])
def test_runs_are_counted_as_they_start_and_end(writes: float) -> None:
    dice, hours = random.Random(7), 2000
    runs, began, last = 0, -math.inf, -math.inf
    at = dice.expovariate(writes)
    while at < hours * 3600:
        if at - last > costs.STAY_SECONDS or at - began > costs.LONGEST_RUN_SECONDS:
            runs, began = runs + 1, at
        last, at = at, at + dice.expovariate(writes)
    expected = monthly_runs(StreamSize(1, writes)) * hours * 3600 / SECONDS_A_MONTH
    assert runs == pytest.approx(expected, rel=0.05)


def test_the_times_of_the_model_are_those_of_sensors_and_runs() -> None:
    assert StreamSize(1, 1.0).tick_seconds == REMOTE_TICK_SECONDS
    assert costs.MERGE_SECONDS == pacing.REMOTE_MERGE_EVERY_SECONDS
    assert costs.LOOK_SECONDS == pacing.REMOTE_LOOK_EVERY_SECONDS
    assert ApplySettings().idle_seconds == costs.STAY_SECONDS
    assert ApplySettings().max_run_minutes * 60 == costs.LONGEST_RUN_SECONDS
