"""Every request of every step may fail: only our errors, nothing lost, nothing doubled.

By default a seeded sample of the positions. `make test-store` strikes every kind of request of
every step, and with DATAZONE_TEST_PROFILE=long every single one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict

import pytest

from datazone_dagster.model.layout import Layout
from tests.store.proxy import Proxy
from tests.store.sweep import FAULTS, STEPS, Step, SweptLakehouse, strikes
from tests.store.sweep_table import SWEEP, SweptStep

SEED = 20261128
SAMPLED = 3


def swept(layout: Layout, proxy: Proxy, *, is_cold: bool = False) -> SweptLakehouse:
    found = SweptLakehouse(layout, proxy, is_cold)
    found.requests_of("run")  # creates the tables
    return found


def test_a_sample_of_the_requests(s3_lakehouse: Layout, proxy: Proxy) -> None:
    lakehouse = swept(s3_lakehouse, proxy)
    choice = random.Random(SEED)
    wrong: list[str] = []
    for step in ("tick", "run"):
        requests = len(lakehouse.requests_of(step))
        for _ in range(SAMPLED):
            nth = choice.randint(1, requests)
            wrong += lakehouse.strike(step, choice.choice(FAULTS), nth).wrong
    assert not wrong, f"seed {SEED}:\n" + "\n".join(wrong)


@pytest.mark.store
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("is_cold", [False, True], ids=["warm", "cold"])
@pytest.mark.parametrize("step", STEPS)
def test_every_kind_of_request(
    s3_lakehouse: Layout,
    proxy: Proxy,
    step: Step,
    is_cold: bool,
    record_property: Callable[[str, object], None],
) -> None:
    lakehouse = swept(s3_lakehouse, proxy, is_cold=is_cold)
    counts = lakehouse.requests_of(step)
    found = [lakehouse.strike(step, fault, nth) for fault, nth in strikes(counts)]
    name = f"{step}, by a new process" if is_cold else step
    record_property(SWEEP, asdict(SweptStep.of(name, len(counts), found)))
    wrong = [text for one in found for text in one.wrong]
    assert not wrong, "\n".join(wrong)
