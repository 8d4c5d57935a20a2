from __future__ import annotations

from datazone_dagster.demo.command import line
from datazone_dagster.demo.facts import DemoFacts


def shown(*checks: tuple[str, str]) -> str:
    return line(DemoFacts(9, 8, 7, 6.4, 5, 6, 2, 3, checks), 12.3).partition("checks ")[2]


def test_a_line_counts_checks_and_names_those_that_fail() -> None:
    lag, health = ("processed_orders lag", "passed"), ("dynamodb/orders stream_health", "running")
    assert shown() == "0 passed"
    assert shown(lag, health) == "1 passed, 1 running"
    assert shown(("processed_orders lag", "warn"), health) == "processed_orders lag: warn"
