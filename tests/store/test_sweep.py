"""Every request of every step may fail: only our errors, nothing lost, nothing doubled.

By default a seeded sample of the positions; all of them in `make test-store`.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from datazone_dagster.model.layout import Layout
from tests.store.proxy import Proxy
from tests.store.sweep import FAULTS, STEPS, Step, SweptLakehouse

SEED = 20261128
SAMPLED = 3
MORE_REQUESTS = 5
"""Requests that a step may take more than the one that was counted."""


def swept(layout: Layout, proxy: Proxy, *, is_cold: bool = False) -> SweptLakehouse:
    found = SweptLakehouse(layout, proxy, is_cold)
    found.requests_of("run")  # creates the tables
    return found


def test_a_sample_of_the_requests(s3_lakehouse: Layout, proxy: Proxy) -> None:
    lakehouse = swept(s3_lakehouse, proxy)
    choice = random.Random(SEED)
    wrong: list[str] = []
    for step in ("tick", "run"):
        requests = lakehouse.requests_of(step)
        for _ in range(SAMPLED):
            wrong += lakehouse.strike(step, choice.choice(FAULTS), choice.randint(1, requests))
    assert not wrong, f"seed {SEED}:\n" + "\n".join(wrong)


@pytest.mark.store
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("is_cold", [False, True], ids=["warm", "cold"])
@pytest.mark.parametrize("step", STEPS)
def test_every_request(s3_lakehouse: Layout, proxy: Proxy, step: Step, is_cold: bool) -> None:
    wrong: list[str] = []
    for number, fault in enumerate(FAULTS):
        layout = replace(s3_lakehouse, uri=f"{s3_lakehouse.uri}/{number}")
        lakehouse = swept(layout, proxy, is_cold=is_cold)
        for nth in range(1, lakehouse.requests_of(step) + MORE_REQUESTS):
            wrong += lakehouse.strike(step, fault, nth)
    assert not wrong, "\n".join(wrong)
